"""The two ways Ray's documentation serves a diffusion model, to be measured against.

One request at a time a replica (Serve's Stable Diffusion example), and `@serve.batch` (its dynamic
request batching guide). Both run the same pipeline class with the same weights, threads and HTTP.
"""

from collections import defaultdict
from typing import Any

from fastapi import FastAPI, Response
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from jobs.tasks.text_to_cxr import TextToCXRSpec
from serve.settings import AppArgs

BATCH_SIZE = 8  # as many requests as are sent at once
BATCH_WAIT_S = 0.1  # both as the guide advises: tuned to the load, the wait well below the work

Job = tuple[str, int]  # prompt and seed of an image


class Pipeline:
    """What both rivals do with a model."""

    def __init__(self, args: AppArgs) -> None:
        from jobs.tasks import TASKS
        from serve.warm_up import make_pool

        self.task: Any = TASKS["text-to-cxr"]
        pool = make_pool(args)
        self.model = pool.acquire(self.task, args.models[0])
        self.call([("warm-up", 0)], 2, 1.5)

    def call(self, images: list[Job], steps: int, guidance: float) -> list[bytes]:
        """PNGs of images that share everything but prompt and seed."""
        from gen.denoising import make_generators

        pipeline = self.model.pipeline
        made = pipeline(
            [prompt for prompt, _ in images],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=make_generators([seed for _, seed in images]),
            output_type="pt",
        ).images
        return [
            self.encode(pixels, *image, steps) for pixels, image in zip(made, images, strict=True)
        ]

    def encode(self, pixels: Any, prompt: str, seed: int, steps: int) -> bytes:
        """A PNG with its record, as ours has it."""
        spec = TextToCXRSpec(prompt=prompt, num_inference_steps=steps, model="rival")
        item = {"prompt": prompt, "seed": seed}
        data: bytes = self.task.encode(self.model.pipeline, spec, item, pixels[None], {}).data
        return data


def images_of(spec: TextToCXRSpec) -> list[Job]:
    """Prompt and seed of each image of a request."""
    seed = spec.seed if isinstance(spec.seed, int) else 0
    return [(prompt, seed + index) for index, prompt in enumerate(spec.prompts)]


class OneAtATime(Pipeline):
    """A request has the replica to itself."""

    def generate(self, spec: TextToCXRSpec) -> bytes:
        """The images of one request, one PNG after another."""
        return b"".join(self.call(images_of(spec), spec.num_inference_steps, spec.guidance_scale))


class Batched(Pipeline):
    """Requests that arrive together are run together; those of equal steps share a call."""

    @serve.batch(max_batch_size=BATCH_SIZE, batch_wait_timeout_s=BATCH_WAIT_S)
    async def generate(self, specs: list[TextToCXRSpec]) -> list[bytes]:
        """The images of each request."""
        groups: defaultdict[tuple[int, float], list[int]] = defaultdict(list)
        for index, spec in enumerate(specs):
            groups[spec.num_inference_steps, spec.guidance_scale].append(index)
        answers = [b""] * len(specs)
        for (steps, guidance), members in groups.items():
            images = [image for index in members for image in images_of(specs[index])]
            made = iter(self.call(images, steps, guidance))
            for index in members:
                answers[index] = b"".join(next(made) for _ in specs[index].prompts)
        return answers


api = FastAPI()


@serve.ingress(api)
class RivalIngress:
    """HTTP before either."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self.handle = handle

    @api.post("/v1/text-to-cxr")
    async def generate(self, spec: TextToCXRSpec) -> Response:
        """The images of one request."""
        return Response(await self.handle.generate.remote(spec), media_type="image/png")


def one_at_a_time(args: AppArgs) -> Application:
    """Serve's Stable Diffusion example."""
    options = {"num_cpus": args.cpus, "num_gpus": args.num_gpus}
    model = serve.deployment(max_ongoing_requests=1, ray_actor_options=options)(OneAtATime)
    ingress = serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})
    return ingress(RivalIngress).bind(model.bind(args))


def batched(args: AppArgs) -> Application:
    """Serve's guide to dynamic request batching."""
    options = {"num_cpus": args.cpus, "num_gpus": args.num_gpus}
    model = serve.deployment(max_ongoing_requests=2 * BATCH_SIZE, ray_actor_options=options)(
        Batched
    )
    ingress = serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})
    return ingress(RivalIngress).bind(model.bind(args))
