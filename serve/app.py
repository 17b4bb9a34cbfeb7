"""The Ray Serve application, for `medphantom serve`, `serve run`, YAML files and tests alike."""

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from serve.ingress import Ingress
from serve.job_worker import JobWorker
from serve.sampler import Sampler
from serve.settings import AppArgs

OPEN_REQUESTS = 1000  # of an ingress: watchers of jobs are cheap, but not free
HEALTH_PERIOD_S = 5.0


def build(args: AppArgs) -> Application:
    """Ingress, samplers and the worker of jobs.

    Args:
        args: what YAML gives under `args`, or `serve run serve.app:build name=value` after it.
    """
    sampler = sampler_deployment(args).bind(args)
    worker = serve.deployment(
        num_replicas=1,
        ray_actor_options={"num_cpus": 0},  # it waits for others
        health_check_period_s=HEALTH_PERIOD_S,
    )(JobWorker).bind(args, sampler)
    ingress = serve.deployment(
        num_replicas=args.ingress_replicas,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=OPEN_REQUESTS,
        max_queued_requests=OPEN_REQUESTS,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=5),
        graceful_shutdown_timeout_s=args.drain_s,
        health_check_period_s=HEALTH_PERIOD_S,
    )(Ingress)
    return ingress.bind(args, sampler, worker)


def sampler_deployment(args: AppArgs) -> serve.Deployment:
    """The samplers' scaling, limits and resources."""
    scaling = AutoscalingConfig(
        min_replicas=args.min_replicas,
        max_replicas=args.max_replicas,
        target_ongoing_requests=args.target_ongoing_requests,
        upscale_delay_s=args.upscale_delay_s,
        downscale_delay_s=args.downscale_delay_s,
        # a look-back longer than the delay would delay, and one shorter thrashes
        look_back_period_s=max(1.0, min(30.0, args.upscale_delay_s)),
        metrics_interval_s=min(5.0, max(0.5, args.upscale_delay_s / 2)),
    )
    deployment: serve.Deployment = serve.deployment(
        autoscaling_config=scaling,
        # jobs' items come on top, or they would take the places of live requests
        max_ongoing_requests=args.max_live_requests + args.job_slots,
        max_queued_requests=args.max_queued_requests + args.job_slots,
        ray_actor_options={"num_cpus": args.cpus, "num_gpus": args.num_gpus},
        graceful_shutdown_timeout_s=args.drain_s,
        health_check_period_s=HEALTH_PERIOD_S,
    )(Sampler)
    return deployment
