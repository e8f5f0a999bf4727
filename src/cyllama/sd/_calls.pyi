from cyllama._native._handle import CallState

WAIT = 0.05

class EngineCall(CallState):
    def __init__(self, cancel=None, progress=None): ...
