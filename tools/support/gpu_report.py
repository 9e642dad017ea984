"""What tools/gpu-check found, as text: one function for each table. A stage that did not run has no table."""


def cells(values, scale=1.0):
    """Figures of a row; what was not measured stays empty."""
    return " | ".join(f"{value * scale:.4g}" if value else "" for value in values)


def stages(report):
    yield from ("| stage | | seconds | |", "|---|---|---|---|")
    for name, stage in report["stages"].items():
        reason = stage.get("reason", "").splitlines()[:1]
        yield f"| {name} | {stage['status']} | {stage['seconds']} | {''.join(reason)} |"


def kernels(report):
    """Every kernel on the first layer shape of each width."""
    widths = report["stages"].get("profile", {}).get("layers", {})
    if widths:
        yield from ("| N | nonzeros | kernel | µs an image | 10¹² edges/s | |", "|---|---|---|---|---|---|")
    for width, facts in widths.items():
        for shape, times in zip(facts["shapes"], facts["ranks"][0]["times"]):
            for kernel in times:
                seconds = kernel.get("seconds_per_image")
                figures = f"{seconds * 1e6:.4g} | {kernel['edges_per_s'] / 1e12:.3g}" if seconds else " | "
                why = kernel.get("declined", "" if seconds else "not timed")
                yield f"| {width} | {shape['nnz']} | {kernel['kernel']} | {figures} | {why} |"


def runs(report):
    found = report["stages"].get("run", {}).get("configurations", {})
    if found:
        yield from ("| configuration | data | status | images | inference, s | nominal 10¹² edges/s | executed |",
                    "|---|---|---|---|---|---|---|")
    for name, run in found.items():
        speed = run["edges_per_s"]
        yield (f"| {name} | {run['data']} | {run['status']} | {run['images']} | {run['seconds']['infer']:.4g} | "
               f"{speed['nominal'] / 1e12:.4g} | {speed['executed'] / 1e12:.4g} |")


def trainings(report):
    found = report["stages"].get("train", {}).get("configurations", {})
    if found:
        yield from ("| training | accuracy | epochs | GPU, ms a step | bf16 | fp16 | CPU | PyTorch, masked | graph |",
                    "|---|---|---|---|---|---|---|---|---|")
    networks = report["stages"].get("torch", {}).get("networks", {})
    for name, training in found.items():
        if {"cuda", "cpu"} <= training.keys():
            peer = networks.get(training["network"], {})
            steps = [*[training.get(kind, {}).get("seconds_per_step") for kind in ("cuda", "bf16", "fp16", "cpu")],
                     peer.get("eager"), peer.get("graph")]
            gpu = training["cuda"]
            yield f"| {name} | {gpu['accuracy']:.4f} | {gpu['epochs']} | {cells(steps, 1e3)} |"


def shared_rows(report):
    found = report["stages"].get("rows", {}).get("shared", {})
    if found:
        yield from ("| shared rows | status | seconds | MB sent | accuracy |", "|---|---|---|---|---|")
    for name, run in found.items():
        seconds = run.get("train_s") or run["seconds"]["infer"]
        sent = sum(layer["forward_bytes"] + layer["backward_bytes"]
                   for layer in (run.get("rows") or {}).get("layers", []))
        accuracy = f"{run['accuracy']:.4f}" if run.get("accuracy") is not None else ""
        yield f"| {name} | {run['status']} | {seconds:.4g} | {sent / 1e6:.4g} | {accuracy} |"


def torch(report):
    peer = report["stages"].get("torch", {})
    if peer.get("layers"):
        yield from (f"PyTorch {peer['version']}:", "")
        yield from ("| N | sparse, µs an image | dense, µs an image |", "|---|---|---|")
        for width, times in peer["layers"].items():
            yield f"| {width} | {cells([times.get('sparse'), times.get('dense')], 1e6)} |"


def markdown(report):
    lines = [f"# {report['devices'][0]['name']}", "",
             f"{report['started']}, {report.get('driver', 'driver unknown')}, "
             f"source {report.get('source', {}).get('commit', 'of this folder')}"]
    for table in (stages, kernels, runs, trainings, shared_rows, torch):
        rows = list(table(report))
        lines += ["", *rows] if rows else []
    return "\n".join(lines) + "\n"
