from cyllama.sd.params import ImageGenParams, VideoGenParams

MAX_STEPS = 1000

class Memory:
    def __init__(self): ...

def check_request(params: ImageGenParams | VideoGenParams) -> None: ...
