"""Limits for images, video and audio."""

from __future__ import annotations

from tunesmith.config.fields import later, section

_WHAT = "models that see or hear"


@section
class MediaConfig:
    """How media are brought to size before the model's own processor sees them."""

    image_max_pixels: int = later(768 * 768, _WHAT)
    """Larger images are shrunk to this area."""
    image_min_pixels: int = later(32 * 32, _WHAT)
    """Smaller images are enlarged to this area."""
    image_do_pan_and_scan: bool = later(False, _WHAT)
    """Cut wide and tall images into several crops (Gemma 3)."""
    crop_to_patches: bool = later(False, _WHAT)
    """Cut images into tiles (InternVL)."""
    video_max_pixels: int = later(256 * 256, _WHAT)
    """Largest area of a video frame."""
    video_min_pixels: int = later(16 * 16, _WHAT)
    """Smallest area of a video frame."""
    video_fps: float = later(2.0, _WHAT)
    """Frames taken from each second of video."""
    video_maxlen: int = later(128, _WHAT)
    """Most frames taken from one video."""
    use_audio_in_video: bool = later(False, _WHAT)
    """Weave a video's sound track into its frames."""
    audio_sampling_rate: int = later(16000, _WHAT)
    """Rate in Hz to which audio is resampled."""
