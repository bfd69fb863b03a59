"""The experiments of Amos et al. (2018), section 5, with the paper's settings.

B. Amos, I. Rodriguez, J. Sacks, B. Boots, J. Z. Kolter: "Differentiable MPC for End-to-end Planning
and Control", NeurIPS 2018, https://arxiv.org/abs/1810.13400

Each experiment is a module with three functions:

- `runs(quick, seed) -> list[Run]`: what to run; `quick` for few seeds and steps, which shows that
  everything works and is no result; `seed` is the first of its seeds,
- `run(folder, **settings) -> dict`: one run, which returns numbers and curves as JSON data. The
  folder is for its log and its checkpoint, from which it goes on when it was stopped,
- `section(results, images) -> Section`: what the results, by the names of the runs, say; with plots
  in the folder `images`.
"""
