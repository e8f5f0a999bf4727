MAX_STEPS = 1000

class Memory:
    def __init__(self): ...
