from cyllama._native._handle import CallState


class EngineCall(CallState):
    def __init__(self, cancel=None, progress=None): ...
