"""Every figure that a released model must reach, on any model folder; see `trainer.evaluate`.

Pictures are made and prepared once, whatever model is judged (`shelf`), then every model reads the
same inputs (`judging`). Each table is a function that gives a `Table` (`tables`).
"""
