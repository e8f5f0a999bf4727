from cyllama.sd.params import ImageGenParams, VideoGenParams


def check_request(params: ImageGenParams | VideoGenParams) -> None: ...
