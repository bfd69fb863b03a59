"""The experiments of Amos et al. (2018), section 5, with the paper's settings.

B. Amos, I. Rodriguez, J. Sacks, B. Boots, J. Z. Kolter: "Differentiable MPC for End-to-end Planning
and Control", NeurIPS 2018, https://arxiv.org/abs/1810.13400
"""
