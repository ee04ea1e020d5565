#include "integration/simulate/compose_run.h"

#include "runtime/predict/judged.h"
#include "runtime/workload/make_length_estimator.h"

namespace foretoken {
namespace {

RunOptions::Instance ComposeInstance(const Topology& topology, const InstanceSpec& spec) {
  const EngineSpec& engine = topology.engines[spec.engine];
  RunOptions::Instance out;
  out.name = spec.instance.name;
  out.engine.config = engine.limits;
  out.engine.step_time = engine.step_time;
  out.engine.noise = {Mix64(topology.seed, spec.instance.id.value()), engine.step_noise, engine.slow_from_step,
                      engine.slow_factor};
  out.profile.instance = spec.instance.id;
  out.profile.limits = engine.limits;
  out.profile.step_time = engine.predictor_step_time;
  out.profile.ttft_offset = engine.ttft_offset;
  out.profile.slo = topology.pools[spec.instance.pool].slo;
  out.profile.expected_arrivals = topology.predictor.expected_arrivals;
  out.profile.calibrate = topology.predictor.calibrate;
  out.facts = spec.instance;
  out.facts.kv_tokens = engine.kv_tokens();
  out.facts.max_model_len = engine.limits.max_model_len;
  return out;
}

}  // namespace

SchedulerCore::Options SchedulerOptionsOf(const Topology& topology) {
  const SchedulerSpec& s = topology.scheduler;
  SchedulerCore::Options o;
  o.policy = s.policy;
  o.weights = s.weights;
  o.slo = topology.slo;
  o.seed = topology.seed;
  o.decision_deadline = s.decision_deadline;
  o.repick = s.repick;
  o.sole = s.count == 1;
  o.predict_max = s.predict_max;
  o.prefilter = s.prefilter;
  o.retry_max = s.retry_max;
  o.retry_max_crash = s.retry_max_crash;
  o.shed_above = s.shed_above;
  o.shed_priority = s.shed_priority;
  return o;
}

Result<RunOptions> ComposeRun(const Topology& topology, const Trace& trace) {
  RunOptions o;
  for (const InstanceSpec& spec : topology.instances) {
    if (topology.engines[spec.engine].adapter != EngineAdapter::kEmulated)
      return Error{topology.file + ": instance " + spec.instance.name +
                   " is a real engine, which virtual time cannot run: use " +
                   "`foretoken serve`, or an engine of kind emulated"};
    o.instances.push_back(ComposeInstance(topology, spec));
  }
  o.scheduler = SchedulerOptionsOf(topology);
  o.scheduler_count = topology.scheduler.count;
  o.faults = topology.faults;
  o.heartbeat = topology.sync.heartbeat;
  o.injected = {topology.predictor.inject_error, topology.predictor.inject_bias};
  o.exact_snapshots = topology.sync.exact_snapshots;
  o.level = topology.sync.level;
  o.poll_interval = topology.sync.poll_interval;
  o.sequencer = topology.sync.sequencer;
  o.stale_after = topology.sync.stale_after;
  o.dead_after = topology.sync.dead_after;
  o.confirm_timeout = topology.sync.confirm_timeout;
  const PredictorKind kind = topology.predictor.kind;
  const bool demote = topology.predictor.demote;
  o.make_predictor = [kind, demote](const InstanceProfile& profile, const LengthEstimator* lengths) {
    return MakeJudgedPredictor(kind, profile, lengths, demote);
  };
  const LengthEstimatorKind estimator = topology.predictor.length_estimator;
  LengthEstimatorOptions lengths;
  if (estimator == LengthEstimatorKind::kOracle)
    for (const TraceRequest& r : trace.requests) lengths.truth.emplace_back(r.meta.id, r.truth.output_tokens);
  o.make_lengths = [estimator, lengths](uint64_t) { return MakeLengthEstimator(estimator, lengths); };
  return o;
}

}  // namespace foretoken
