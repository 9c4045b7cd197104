"""The Space: the page at /, the API of OpenAI's clients at /v1. Runs without a GPU too: python app.py."""

try:
    import spaces  # before torch: on ZeroGPU it stands in for CUDA until a GPU is lent
except ImportError:
    spaces = None

from sgdiff_app.server import space

if __name__ == "__main__":
    space.run(
        lend=spaces and spaces.GPU,
        caps={"width": 1536, "height": 1536, "num_inference_steps": 50, "num_outputs_per_prompt": 4, "num_frames": 81},
        loras=("neon-night", "pencil-sketch", "pixel-art"),
    )
