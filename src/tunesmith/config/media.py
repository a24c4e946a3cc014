"""Limits for images, video and audio."""

from __future__ import annotations

from tunesmith.config.fields import later, section, works

_WHAT = "models that see or hear"


@section
class MediaConfig:
    """How media are brought to size before the model's own processor sees them."""

    image_max_pixels: int = works(768 * 768, least=1)
    """Larger images are shrunk to this area: width times height."""
    image_min_pixels: int = works(32 * 32, least=1)
    """Smaller images are enlarged to this area."""
    image_do_pan_and_scan: bool = works(False)
    """Cut wide and tall images into up to four crops beside the whole (Gemma 3)."""
    crop_to_patches: bool = works(False)
    """Cut images into up to twelve tiles beside the whole (InternVL)."""
    video_max_pixels: int = works(256 * 256, least=1)
    """Largest area of a video frame."""
    video_min_pixels: int = works(16 * 16, least=1)
    """Smallest area of a video frame."""
    video_fps: float = works(2.0, above=0)
    """Frames taken from each second of video."""
    video_maxlen: int = works(128, least=1)
    """Most frames taken from one video."""
    use_audio_in_video: bool = later(False, _WHAT)
    """Weave a video's sound track into its frames."""
    audio_sampling_rate: int = works(16000, least=1000, most=192_000)
    """Rate in Hz to which audio is resampled."""
