"""Measuring while something else trains: the same numbers as measuring afterwards, in every framework."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure import measure, measure_model
from neuralcollapse.measure.callbacks import MergingAlert, MinoritiesMerging, Watch, gram_picture, log_to
from neuralcollapse.measure.callbacks.trackers import alert_active
from neuralcollapse.predict import predict

COUNTS = ClassCounts([16, 16, 4, 4])
LABELS = torch.arange(4).repeat_interleave(torch.tensor([16, 16, 4, 4]))


@pytest.fixture
def inputs():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + LABELS[:, None]


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 4))


def batches(inputs, size=16):
    return list(zip(inputs.split(size), LABELS.split(size), strict=True))


def merged_features(share):
    """Features, labels and a head whose minority classifiers are merged (1) or as predicted (0)."""
    weight, means = predict(COUNTS).factors(6, seed=0)
    weight[2:] += share * (weight[2:].mean(0) - weight[2:])
    return means[LABELS.numpy()], LABELS.numpy(), weight


# -- the schedule and the watch ----------------------------------------------------------------------


@pytest.mark.parametrize(("every", "epochs", "expected"), [
    (1, None, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]), (4, None, [4, 8, 12]), (4, 13, [4, 8, 12, 13]),
    ("log", None, [1, 2, 3, 4, 6, 8, 12]), ("log", 13, [1, 2, 3, 4, 6, 8, 12, 13])])
def test_epochs_that_are_measured(every, epochs, expected):
    watch = Watch(network(), COUNTS, every=every, epochs=epochs)
    due = []
    for epoch in range(1, 14):
        watch.start_epoch(epoch)
        due += [epoch] if watch.due else []
    assert due == expected


def test_log_spaced_epochs_are_the_powers_of_root_two_rounded_up():
    watch = Watch(network(), COUNTS)
    exact = sorted({int(np.ceil(2.0 ** (j / 2) - 1e-9)) for j in range(22)})
    due = []
    for epoch in range(1, exact[-1] + 1):
        watch.start_epoch(epoch)
        due += [epoch] if watch.due else []
    assert due == exact


@pytest.mark.parametrize("size", [7, 40])
def test_watching_equals_measuring_what_the_head_saw(inputs, size):
    model, seen = network(), []
    model[3].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    watch = Watch(model, COUNTS)
    for some, labels in batches(inputs, size):
        model(some)  # in training mode: dropout is on
        watch.add(labels)
    report = watch.end_epoch()
    direct = measure(torch.cat(seen), LABELS, model[3].weight, model[3].bias, targets=("seli", "etf"), nc4=None)
    expected = direct.scalars()
    for name, value in report.measurement.scalars().items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-9, err_msg=name)


def test_labels_may_be_an_array_a_list_or_whole_floats(inputs):
    reports = []
    for given in (LABELS, LABELS.numpy(), LABELS.tolist(), LABELS.double()):
        torch.manual_seed(0)
        model = network()
        watch = Watch(model, COUNTS, head=model[3])
        model(inputs)
        watch.add(given)
        reports.append(watch.end_epoch().scalars())
    assert all(report == reports[0] for report in reports)


def test_a_loader_is_measured_as_measure_model_does_and_dropout_is_off(inputs):
    model = network()
    watch = Watch(model, COUNTS)
    report = watch.end_epoch(batches(inputs))
    expected = measure_model(model, batches(inputs), counts=COUNTS).scalars()
    np.testing.assert_equal(report.measurement.scalars(), expected)
    assert model.training


def test_what_was_added_before_a_loader_was_measured_is_forgotten(inputs):
    model = network()
    watch = Watch(model, COUNTS, every=1)
    for batches_given in (batches(inputs), None):
        model(inputs)
        watch.add(LABELS)
        assert watch.end_epoch(batches_given).measurement.measured.seen.tolist() == COUNTS.values.tolist()


def test_decisions_are_those_made_before_the_optimiser_moved_the_head(inputs):
    model = network().eval()
    watch = Watch(model, COUNTS)
    correct = (model(inputs).argmax(1) == LABELS).double().mean().item()
    with torch.no_grad():
        model[3].weight.neg_()
    watch.add(LABELS)
    assert watch.end_epoch().scalars()["nc/accuracy"] == pytest.approx(correct, rel=1e-12, abs=1e-12)


def test_epochs_that_are_not_due_cost_no_hook_and_the_next_one_starts_afresh(inputs):
    model = network()
    watch = Watch(model, COUNTS, every=2)

    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

    assert hooks() == 0
    model(inputs)
    watch.add(LABELS)
    assert watch.end_epoch() is None
    assert hooks() > 0
    for _ in range(2):
        model(inputs)
        watch.add(LABELS)
    assert watch.end_epoch().measurement.measured.seen.tolist() == [32, 32, 8, 8]
    assert hooks() == 0
    watch.end_epoch()
    model(inputs)
    watch.add(LABELS)
    second = watch.end_epoch()
    assert (second.epoch, second.measurement.measured.seen.tolist()) == (4, [16, 16, 4, 4])
    assert second.measurement.measured.nc4_means == "previous"
    with watch:
        watch.start_epoch(6)
    assert hooks() == 0


def test_tokens_are_predicted_from_the_position_before(inputs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(4, 8), nn.Linear(8, 4))
    tokens = torch.stack([torch.arange(4).repeat(3), torch.arange(4).repeat_interleave(3)])
    labels = tokens.clone()
    labels[1, 3] = -100
    watch = Watch(model, [6, 6, 6, 6], next_token=True)
    model(tokens)
    watch.add(labels)
    report = watch.end_epoch()
    features, wanted = model[0](tokens)[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    used = wanted != -100
    expected = measure(features[used], wanted[used], model[1].weight, model[1].bias, targets=("seli", "etf"),
                       counts=[6, 6, 6, 6], nc4=None).scalars()
    for name, value in report.measurement.scalars().items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-9, err_msg=name)


def test_reports_hold_finite_scalars_and_one_line(inputs):
    watch = Watch(network(), COUNTS)
    report = watch.end_epoch(batches(inputs))
    short, full = report.scalars(), report.scalars(per_class=True)
    assert all(np.isfinite(value) for value in full.values())
    assert not any(name.startswith("nc/class/") for name in short)
    assert full.keys() > short.keys() >= {"nc/within_trace", "nc/merging", "nc/dimensions", "nc/seli/classifiers"}
    values = report.measurement.to_dict()
    assert str(report) == (f"epoch 1  NC1 {values['nc1']['trace']:.3g}  D_W {values['distance']['classifiers']:.3g}  "
                           f"D_M {values['distance']['embeddings']:.3g}  accuracy {values['accuracy']['overall']:.3g}  "
                           f"{report.verdict.kind}")


def added(labels, epochs=1, **options):
    def go():
        model = network()
        watch = Watch(model, COUNTS, **options)
        model(torch.zeros(40, 6))
        if labels is not None:
            watch.add(labels)
        watch.end_epoch()
    return go


BAD = [
    (added(None), "nothing was measured in epoch 1: call add(labels) after each forward pass, or give end_epoch a data "
                  "loader"),
    (lambda: Watch(network(), COUNTS).add(LABELS), "the head was never reached: run the model first, where a Probe is "
                                                   "used alone inside `with probe:` (watched: 3)"),
    (added(LABELS + 0.5), "labels must be whole numbers, got torch.float32 ([0.5, 0.5, 0.5, 0.5, 0.5])"),
    (added(LABELS[:7]), "labels must be one per row that the head saw, expected 40, got 7"),
    (added(LABELS, every=0), "every must be a whole number of epochs or 'log', got '0'"),
    (added(LABELS, every="linear"), "every must be a whole number of epochs or 'log', got 'linear'"),
    (added(LABELS, alert=0.0), "the alert's threshold must lie above 0 and at most at 1, got 0.0"),
    (added(LABELS, alert=1.5), "the alert's threshold must lie above 0 and at most at 1, got 1.5"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_is_one_line(call, message):
    with pytest.raises(InvalidInput) as error:
        call()
    assert str(error.value) == message


PROCESSES = """
import sys, torch
from torch import distributed, multiprocessing, nn
from neuralcollapse.measure.callbacks import Watch

def run(rank, world, port, out):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{out}/meet", rank=rank, world_size=world)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4))
    labels = torch.arange(4).repeat_interleave(torch.tensor([16, 16, 4, 4]))
    inputs = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + labels[:, None]
    mine = slice(0, 27) if rank == 0 else slice(27, 40)  # uneven, and with classes that one of them has not
    logged = []
    watch = Watch(model, [16, 16, 4, 4], every=1, log=logged.append)
    model(inputs[mine])
    watch.add(labels[mine])
    on_the_way = watch.end_epoch()
    afterwards = watch.end_epoch([(inputs[mine], labels[mine])])
    named = watch.end_epoch([{"input": inputs[mine], "labels": labels[mine]}])  # the model takes no labels
    torch.save((on_the_way.scalars(True), afterwards.scalars(True), named.scalars(True), len(logged)),
               f"{out}/{rank}.pt")
    distributed.destroy_process_group()

if __name__ == "__main__":
    multiprocessing.spawn(run, (2, 0, sys.argv[1]), nprocs=2)
"""


def test_two_processes_report_what_one_does_and_one_of_them_logs(tmp_path, inputs):
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4))
    expected = measure_model(model, [(inputs, LABELS)], counts=COUNTS).scalars()
    for rank in (0, 1):
        *reports, logged = torch.load(tmp_path / f"{rank}.pt")
        assert logged == (3 if rank == 0 else 0)
        for scalars in reports:
            for name in scalars.keys() & expected.keys():
                np.testing.assert_allclose(scalars[name], expected[name], rtol=1e-5, atol=1e-9, err_msg=name)
            assert scalars["nc/accuracy"] == pytest.approx(expected["nc/accuracy"], rel=1e-12, abs=1e-12)


def test_the_log_hears_every_measured_epoch_in_order(inputs):
    heard = []
    watch = Watch(network(), COUNTS, every=2, log=heard.append)
    for _ in range(6):
        watch.end_epoch(batches(inputs))
    assert [report.epoch for report in heard] == [2, 4, 6]


# -- the alert ---------------------------------------------------------------------------------------


def test_the_alert_takes_two_in_a_row_or_one_at_the_end_and_speaks_once():
    merged, apart = measure(*merged_features(1.0)), measure(*merged_features(0.0))

    def spoken(alert, *history):
        return [alert(one) is not None for one in history]

    assert spoken(MergingAlert(), merged, merged, merged, merged) == [False, True, False, False]
    assert spoken(MergingAlert(), merged, apart, merged, apart) == [False] * 4
    assert spoken(MergingAlert(), merged, merged, apart, merged, merged) == [False, True, False, False, True]
    assert MergingAlert()(merged, last=True) is not None
    assert MergingAlert()(apart, last=True) is None
    alert = MergingAlert()
    assert [alert(merged) is None, alert(merged) is None, alert(merged, last=True) is None] == [True, False, True]
    message = MergingAlert()(merged, last=True)
    predicted = predict(COUNTS).classifiers.cosines()[2, 3]
    assert message == ("minority classifiers are merging: mean minority cosine 1.00 where "
                       f"{predicted:.2f} is predicted (100% of the way to a shared direction); theory merges classes "
                       "from λ = 2 on, a weight decay of 0.05 on head and features with a mean loss over 40 samples: "
                       "go below it, or weigh minority classes more")


def test_the_threshold_from_both_sides():
    from neuralcollapse.measure.verdict import merging

    measured = measure(*merged_features(0.6))
    share = merging(measured).share
    assert 0.1 < share < 0.9
    assert MergingAlert(share * 1.001)(measured, last=True) is None
    assert MergingAlert(share * 0.999)(measured, last=True) is not None


def merging_run(watch, epochs=4):
    """A model whose head is merged already, its features in the predicted geometry."""
    features = torch.tensor(merged_features(1.0)[0], dtype=torch.float32)
    model = watch._model
    reports = []
    for _ in range(epochs):
        model(features)
        watch.add(LABELS)
        reports.append(watch.end_epoch())
    return reports


def merged_model():
    model = nn.Sequential(nn.Identity(), nn.Linear(6, 4, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor(merged_features(1.0)[2]))
    return model


def test_an_alert_is_a_warning_and_can_stop_the_run():
    watch = Watch(merged_model(), COUNTS, every=1, stop=True)
    with pytest.warns(MinoritiesMerging, match="^epoch 2: minority classifiers are merging: [^\n]*$"):
        reports = merging_run(watch)
    assert watch.stopped
    assert [report.alert is not None for report in reports] == [False, True, False, False]
    for options in ({"stop": False}, {"stop": True, "alert": None}):
        watch = Watch(merged_model(), COUNTS, every=1, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MinoritiesMerging)
            merging_run(watch)
        assert not watch.stopped


# -- trackers ----------------------------------------------------------------------------------------


def recorder(alerts=False, images=False, named="recorder"):
    from accelerate.tracking import GeneralTracker

    class Run:
        def __init__(self):
            self.alerts = []
            if alerts:
                self.alert = lambda title, text: self.alerts.append((title, text))

    class Recorder(GeneralTracker):
        name, requires_logging_directory = named, False

        def __init__(self):
            super().__init__()
            self.run, self.logged, self.pictures = Run(), [], []
            if images:
                self.log_images = lambda values, step=None: self.pictures.append((values, step))

        @property
        def tracker(self):
            return self.run

        def log(self, values, step=None, **kwargs):
            self.logged.append((values, step))

    return Recorder()


@pytest.fixture
def alarming():
    watch = Watch(merged_model(), COUNTS, every=1)
    with pytest.warns(MinoritiesMerging):
        return merging_run(watch, 2)[1]


def test_scalars_pictures_and_alerts_go_through_a_tracker(alarming):
    tracker = recorder(alerts=True, images=True)
    log_to(tracker, alarming, step=70, figures=gram_picture)
    assert tracker.logged == [(alarming.scalars(), 70)]
    assert tracker.run.alerts == [("Minority classes are merging", f"step 70: {alarming.alert}")]
    (pictures, step), = tracker.pictures
    assert (list(pictures), step) == (["nc/grams"], 70)
    assert pictures["nc/grams"].dtype == np.uint8
    assert pictures["nc/grams"].shape[0] == 1
    assert pictures["nc/grams"].shape[-1] == 3
    assert pictures["nc/grams"].std() > 10  # something is drawn
    plain = recorder()
    log_to(plain, alarming, figures=gram_picture)
    assert plain.logged == [(alarming.scalars(), alarming.epoch)]


def test_an_accelerator_stands_for_its_trackers(alarming):
    from accelerate import Accelerator

    tracker = recorder()
    accelerator = Accelerator(cpu=True, log_with=tracker)
    accelerator.init_trackers("run")
    log_to(accelerator, alarming, step=3)
    accelerator.end_training()
    assert tracker.logged == [(alarming.scalars(), 3)]


def test_tensorboard_holds_scalars_the_picture_and_the_alert(alarming, tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path)
    accelerator.init_trackers("run")
    log_to(accelerator, alarming, step=5, figures=gram_picture)
    accelerator.end_training()
    events = accumulators.EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    for name, value in alarming.scalars().items():
        (event,) = events.Scalars(name)
        assert (event.step, event.value) == (5, pytest.approx(value, rel=1e-6, abs=1e-12))
    (image,) = events.Images("nc/grams")
    assert (image.step, image.width, image.height) == (5, 750, 500)
    (text,) = events.Tensors("nc/alert/text_summary")
    assert text.tensor_proto.string_val[0].decode() == alarming.alert


def test_mlflow_and_trackio_are_given_pictures_their_own_way(alarming, monkeypatch):
    mlflow = recorder(named="mlflow")
    mlflow.figures = []
    mlflow.log_figure = lambda figure, name: mlflow.figures.append((type(figure).__name__, name))
    log_to(mlflow, alarming, step=9, figures=gram_picture)
    assert mlflow.figures == [("Figure", "nc/grams-9.png")]
    module = type(sys)("trackio")  # stands in for a package that is not installed: its documented API
    module.Image = lambda pixels: ("image", pixels.shape)
    monkeypatch.setitem(sys.modules, "trackio", module)
    trackio = recorder(named="trackio", alerts=True)
    log_to(trackio, alarming, step=9, figures=gram_picture)
    assert trackio.logged[1] == ({"nc/grams": ("image", (500, 750, 3))}, 9)
    assert trackio.run.alerts[0][0] == "Minority classes are merging"


def test_the_active_run_is_alerted(monkeypatch):
    heard = []
    module = type(sys)("wandb")
    module.run = None
    monkeypatch.setitem(sys.modules, "wandb", module)
    alert_active("text", 4)
    assert heard == []
    module.run = type("Run", (), {"alert": staticmethod(lambda title, text: heard.append(text))})
    alert_active("text", 4)
    assert heard == ["step 4: text"]


def test_the_picture_shows_measured_above_predicted():
    figure = gram_picture(measure(*merged_features(0.0)))["nc/grams"]
    titles = [axes.get_title() for axes in figure.axes[:6]]
    assert titles == [f"{part}, {row}" for row in ("measured", "seli") for part in ("classifiers", "class means",
                                                                                    "logits")]
    shown = [axes.images[0].get_array().data for axes in figure.axes[:6]]
    for measured, predicted in zip(shown[:3], shown[3:], strict=True):
        np.testing.assert_allclose(measured, predicted, atol=1e-12)
        assert np.linalg.norm(predicted) == pytest.approx(1, abs=1e-12)
    features, labels, _ = merged_features(0.0)
    assert gram_picture(measure(features, labels)) == {}
    assert gram_picture(measure(np.eye(201), np.arange(201), np.eye(201))) == {}


# -- Lightning ---------------------------------------------------------------------------------------


PACKAGES = ("lightning.pytorch", "pytorch_lightning")


@pytest.fixture(params=PACKAGES)
def lightning(request):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip(request.param)


def module_of(lightning, inner):
    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

        def training_step(self, batch, batch_index):
            return cross_entropy(self.inner(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    return Module()


def fit(lightning, module, data, callback, tmp_path, logger=False, epochs=4):
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", logger=logger, callbacks=callback,
                                enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
                                default_root_dir=tmp_path, log_every_n_steps=1)
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=16))
    return trainer


@pytest.mark.parametrize("loader", [False, True])
def test_lightning_logs_what_measuring_afterwards_gives(lightning, inputs, tmp_path, loader):
    from neuralcollapse.measure.callbacks.lightning import CollapseCallback

    inner = network().eval()
    inner.train = lambda mode=True: inner  # dropout stays off, so that there is one right answer
    data = torch.utils.data.TensorDataset(inputs, LABELS)
    callback = CollapseCallback(COUNTS, every=3, batches=batches(inputs) if loader else None)
    trainer = fit(lightning, module_of(lightning, inner), data, callback, tmp_path)
    expected = measure_model(inner, batches(inputs), counts=COUNTS).scalars()
    assert [report.epoch for report in callback.reports] == [3, 4]
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert logged.keys() == callback.reports[-1].scalars().keys()
    for name in logged.keys() & expected.keys():
        np.testing.assert_allclose(logged[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in inner.modules())


def test_lightning_stops_alerts_and_draws(lightning, tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from neuralcollapse.measure.callbacks.lightning import CollapseCallback

    features = torch.tensor(merged_features(1.0)[0], dtype=torch.float32)
    data = torch.utils.data.TensorDataset(features, LABELS)
    logger = lightning.loggers.TensorBoardLogger(tmp_path, name="run", version="one")
    callback = CollapseCallback(COUNTS, every=1, stop=True, figures=gram_picture)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", MinoritiesMerging)
        trainer = fit(lightning, module_of(lightning, merged_model()), data, [callback], tmp_path, logger, epochs=9)
    assert trainer.current_epoch == 2
    assert [warning.category for warning in seen] == [MinoritiesMerging]
    events = accumulators.EventAccumulator(str(tmp_path / "run" / "one"))
    events.Reload()
    assert len(events.Images("nc/grams")) == 2
    assert len(events.Scalars("nc/seli/classifiers")) == 2
    (text,) = events.Tensors("nc/alert/text_summary")
    assert text.tensor_proto.string_val[0].decode() == callback.reports[1].alert


@pytest.mark.parametrize(("used", "other"), [PACKAGES, PACKAGES[::-1]])
def test_lightning_callbacks_belong_to_the_package_in_use_alone(used, other):
    pytest.importorskip(used)
    code = ("from neuralcollapse.measure.callbacks.lightning import CollapseCallback;"
            f"import pickle, sys, {used} as pl;"
            "callback = CollapseCallback([4, 2], every=3); again = pickle.loads(pickle.dumps(callback));"
            "assert isinstance(callback, CollapseCallback) and isinstance(callback, pl.Callback);"
            "assert type(again) is type(callback) and again._options == {'every': 3};"
            f"assert {other!r} not in sys.modules; print(callback.counts)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[4, 2]\n"), done.stderr


def test_lightning_labels_may_lie_elsewhere(lightning, inputs, tmp_path):
    from neuralcollapse.measure.callbacks.lightning import CollapseCallback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def training_step(self, batch, batch_index):
            return cross_entropy(self.inner(batch["x"]), batch["class"])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    data = [{"x": x, "class": y} for x, y in zip(inputs, LABELS, strict=True)]
    callback = CollapseCallback(COUNTS, labels=lambda batch: batch["class"])
    fit(lightning, Module(), data, [callback], tmp_path, epochs=1)
    assert callback.reports[0].measurement.measured.seen.tolist() == [16, 16, 4, 4]
    with pytest.raises(InvalidInput) as error:
        fit(lightning, Module(), data, [CollapseCallback(COUNTS)], tmp_path, epochs=1)
    assert str(error.value) == ("a batch must hold its labels under one of labels, label, y, target, targets, got x, "
                                "class")


# -- Hugging Face ------------------------------------------------------------------------------------


@pytest.fixture
def huggingface():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("transformers")


def classifier(transformers, inner):
    class Model(transformers.PreTrainedModel):
        config_class = transformers.PretrainedConfig
        base_model_prefix = "inner"

        def __init__(self):
            super().__init__(transformers.PretrainedConfig())
            self.inner = inner

        def forward(self, x, labels=None):
            logits = self.inner(x)
            loss = None if labels is None else cross_entropy(logits, labels)
            return {"loss": loss, "logits": logits} if loss is not None else {"logits": logits}

    return Model()


def trainer_of(transformers, model, inputs, tmp_path, **options):
    data = [{"x": x, "labels": y} for x, y in zip(inputs, LABELS, strict=True)]
    arguments = transformers.TrainingArguments(
        str(tmp_path), **{"num_train_epochs": 3, "per_device_train_batch_size": 16, "learning_rate": 0.0,
                          "use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
                          "logging_strategy": "epoch", "remove_unused_columns": False} | options)
    trainer = transformers.Trainer(model, arguments, train_dataset=data, eval_dataset=data)
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}])
@pytest.mark.parametrize("on", ["training", "train", "eval"])
@pytest.mark.parametrize("known", [False, True])
def test_the_trainer_logs_what_measuring_afterwards_gives(huggingface, inputs, tmp_path, on, known, options):
    from neuralcollapse.measure.callbacks.transformers import CollapseCallback

    inner = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4))
    trainer = trainer_of(huggingface, classifier(huggingface, inner), inputs, tmp_path,
                         eval_strategy="epoch" if on == "eval" else "no", **options)
    callback = CollapseCallback(COUNTS, trainer if known else None, on=on, every=2)
    trainer.add_callback(callback)
    trainer.train()
    expected = measure_model(inner, batches(inputs), counts=COUNTS).scalars()
    assert [report.epoch for report in callback.reports] == [2, 3]
    entries = [entry for entry in trainer.state.log_history if "nc/within_trace" in entry]
    assert [entry["epoch"] for entry in entries] == [2, 3]
    for name, value in expected.items():
        if name in entries[-1]:
            np.testing.assert_allclose(entries[-1][name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    # the trainer's own epoch logs are all still there
    assert [entry["epoch"] for entry in trainer.state.log_history if "loss" in entry] == [1, 2, 3]
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in trainer.model.modules())


def test_the_trainer_stops_and_tensorboard_has_it_all(huggingface, tmp_path, monkeypatch):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from neuralcollapse.measure.callbacks.transformers import CollapseCallback

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    features = torch.tensor(merged_features(1.0)[0], dtype=torch.float32)
    trainer = trainer_of(huggingface, classifier(huggingface, merged_model()), features, tmp_path,
                         report_to="tensorboard", num_train_epochs=8)
    callback = CollapseCallback(COUNTS, trainer, every=1, stop=True, figures=gram_picture)
    trainer.add_callback(callback)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", MinoritiesMerging)
        trainer.train()
    assert trainer.state.epoch == 2
    assert [warning.category for warning in seen] == [MinoritiesMerging]
    events = accumulators.EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert len(events.Images("nc/grams")) == 2
    assert [event.step for event in events.Scalars("train/nc/seli/classifiers")] == [3, 6]


def test_what_the_trainer_callback_cannot_use_is_said(huggingface, inputs, tmp_path):
    from neuralcollapse.measure.callbacks.transformers import CollapseCallback

    with pytest.raises(InvalidInput) as error:
        CollapseCallback(COUNTS, on="test")
    assert str(error.value) == "on must be one of training, train, eval, got 'test'"
    model = classifier(huggingface, nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4)))
    trainer = trainer_of(huggingface, model, inputs, tmp_path, label_smoothing_factor=0.1)
    trainer.add_callback(CollapseCallback(COUNTS))
    with pytest.raises(InvalidInput) as error:
        trainer.train()
    assert str(error.value) == ("the model must be called with labels=, which label smoothing and compute_loss_func "
                                "take away: measure with on='train'")


def test_a_missing_library_is_said_with_the_extra_that_brings_it():
    code = """
import importlib.util as util
find = util.find_spec
util.find_spec = lambda name, *rest: None if name in ("lightning", "pytorch_lightning", "transformers") else find(name)
from neuralcollapse.measure.callbacks import lightning, transformers
for module in (lightning, transformers):
    try:
        module.CollapseCallback([4, 2])
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == ("Lightning is not installed: pip install 'neuralcollapse[lightning]'\n"
                           "transformers is not installed: pip install 'neuralcollapse[transformers]'\n"), done.stderr
