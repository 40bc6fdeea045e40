"""What GRPO can train: one file per kind of policy, each fulfilling `trainer.grpo.Policy`.

heads.py    small heads on a frozen backbone; a step is a head choosing an outcome
"""
