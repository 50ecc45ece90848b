"""The machinery of `train.py`: a training that cannot be lost, on one process or many.

- `training.py`: the training itself; its step stands whole on one screen
- `run.py`: the run around it: set up, log, save, stop, finish
- `run_folder.py`, `checkpoint.py`: what lies on the disk, and how a run is taken up again from it
- `measure.py`, `board.py`, `pictures.py`: what is measured, and how TensorBoard shows it
- `processes.py`: several processes; `stopping.py`: Ctrl-C and SIGTERM; `checks.py`: settings that cannot work
"""
