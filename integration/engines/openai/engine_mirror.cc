#include "integration/engines/openai/engine_mirror.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/model/snapshot.h"
#include "runtime/predict/make_predictor.h"
#include "runtime/workload/make_length_estimator.h"

namespace foretoken {
namespace {

std::unique_ptr<LengthEstimator> NewLengths() {
  auto lengths = MakeLengthEstimator(LengthEstimatorKind::kHint);
  FT_CHECK(lengths.ok());
  return std::move(lengths).value();
}

}  // namespace

std::string_view NameOf(StateLevel level) {
  switch (level) {
    case StateLevel::kExact: return "exact";
    case StateLevel::kFollowing: return "following";
    case StateLevel::kAggregate: return "aggregate";
    case StateLevel::kInferred: return "inferred";
  }
  return "inferred";
}

EngineMirror::EngineMirror(Options options) : options_(options) {
  limits_.num_gpu_blocks = 1 << 16;  // a million tokens: unknown memory is taken to be ample
  limits_.async_scheduling = false;
  limits_.stop_at_eos = true;
  simulator_ = NewSimulator();
}

std::unique_ptr<SimulatorCore> EngineMirror::NewSimulator() const {
  SimulatorCore::Options o;
  o.profile.instance = options_.instance;
  o.profile.limits = limits_;
  o.profile.step_time = law_.model();
  o.profile.slo = options_.slo;
  o.profile.calibrate = true;
  o.profile.expected_arrivals = true;
  o.level = SyncLevel::kFull;
  o.confirm_timeout = Duration::Seconds(60);
  auto lengths = NewLengths();
  auto predictor = MakePredictor(PredictorKind::kTimeline, o.profile, lengths.get());
  FT_CHECK(predictor.ok());
  return std::make_unique<SimulatorCore>(std::move(o), std::move(predictor).value(), std::move(lengths));
}

EngineMirror::Held* EngineMirror::Find(RequestId request) {
  const auto at = std::find_if(held_.begin(), held_.end(), [&](const Held& h) { return h.reservation.request == request; });
  return at == held_.end() ? nullptr : &*at;
}

void EngineMirror::Stream(StreamBody body, Instant now) {
  StreamMessage message{options_.instance, options_.source, Epoch(epoch_), seq_++, std::move(body), now};
  simulator_->OnStream(message, now, *this);
}

Prediction EngineMirror::Predict(const PredictQuery& query, Instant now) {
  now_ = now;
  inference_.Advance(now, law_.model(), *this);
  if (rebuild_due_) Rebuild(now);
  if (follows_stream(now)) {
    asked_ = RequestId();  // the black box was not asked
    return live_->Predict(query, now);
  }
  Prediction p = simulator_->Predict(query, now);
  asked_ = query.request->id;
  asked_ttft_ns_ = static_cast<double>(p.ttft.nanos());
  asked_cached_ = static_cast<int32_t>(p.cached_tokens.value());
  const double lasting = std::exp2(-std::max(0.0, static_cast<double>((now - offset_at_).nanos())) / kOffsetLastsNs);
  const Duration offset = Duration::FromNanos(std::max(offset_ns_ * lasting, -0.9 * asked_ttft_ns_));
  const double prior = load_prior();
  for (Duration* d : {&p.ttft, &p.ttft_p90, &p.e2e, &p.e2e_p90, &p.e2e_alone}) {
    *d = std::max(Duration::Nanos(1), Duration::FromNanos(static_cast<double>((*d + offset).nanos()) * prior));
  }
  p.level = StateLevel::kInferred;
  p.age_uncertainty = inference_.uncertainty();
  return p;
}

Prediction EngineMirror::Believed(Prediction p) const {
  if (p.level != StateLevel::kInferred) return p;
  // Its own reservation has been made since.
  const double prior = 1 + kLoadPrior * (static_cast<double>(held_.size()) - 1);
  for (Duration* d : {&p.ttft, &p.ttft_p90, &p.e2e, &p.e2e_p90, &p.e2e_alone})
    *d = Duration::FromNanos(static_cast<double>(d->nanos()) / prior);
  return p;
}

EnqueueReply EngineMirror::OnEnqueue(const EnqueueOrder& order, Instant now) {
  now_ = now;
  EnqueueOrder own = order;
  own.guarded = order.guarded && !follows_stream(now);  // else the versions that it was predicted on are of the stream's mirror
  const EnqueueReply reply = simulator_->OnEnqueue(own, now);
  if (!reply.accepted || Find(order.reservation.request) != nullptr) return reply;
  Held h;
  h.reservation = order.reservation;
  h.decided = now;
  if (asked_ == order.reservation.request) {
    h.raw_ttft_ns = asked_ttft_ns_;
    h.cached = asked_cached_;
  }
  held_.push_back(std::move(h));
  if (live_ != nullptr) live_->OnEnqueue(order, now);
  return reply;
}

void EngineMirror::OnSent(const RequestMeta& request, bool streaming, Instant now) {
  now_ = now;
  Held* h = Find(request.id);
  if (h == nullptr || h->sent) return;
  h->sent = true;
  if (live_ != nullptr) live_->OnSent(request.id, now);
  const auto prompt = static_cast<int32_t>(std::max<int64_t>(1, h->reservation.prompt_tokens));
  Arrived arrived;
  arrived.request = request.id;
  arrived.at = now;
  arrived.prompt_tokens = prompt;
  arrived.priority = request.priority;
  Stream(arrived, now);
  inference_.OnSent({request.id, prompt, h->cached, streaming}, now);
}

void EngineMirror::OnOutput(RequestId request, int32_t chunks, Instant now) {
  now_ = now;
  Held* h = Find(request);
  if (h == nullptr) return;
  if (!h->began) {
    h->began = true;
    if (live_ != nullptr) live_->OnFirstToken(request, now);
    const double actual = static_cast<double>((now - h->decided).nanos());
    // A first token far from the prediction counts less than its distance: one stall is no habit.
    const double most = 1e7 + h->raw_ttft_ns;
    const double error = std::clamp(actual - h->raw_ttft_ns - offset_ns_, -most, most);
    offset_at_ = now;
    if (h->raw_ttft_ns > 0) offset_ns_ += error / 24;
  }
  inference_.OnOutput(request, chunks, now, *this);
}

void EngineMirror::OnFinished(RequestId request, TokenCount output, bool exact, Instant now) {
  now_ = now;
  if (Find(request) == nullptr) return;
  if (live_ != nullptr) live_->OnEnded(request, output, now);
  inference_.Advance(now, law_.model(), *this);
  inference_.OnFinished(request, static_cast<int32_t>(std::clamp<int64_t>(output.value(), 1, 1 << 24)), exact, now, *this);
}

void EngineMirror::OnGone(RequestId request, Instant now) {
  now_ = now;
  inference_.OnGone(request);
  std::erase_if(held_, [&](const Held& h) { return h.reservation.request == request; });
  simulator_->OnCancel(request, now);
  if (live_ != nullptr) live_->OnGone(request, now);
}

void EngineMirror::OnStream(StreamMessage message, Instant now, LiveMirror::Effects& effects) {
  now_ = now;
  if (live_ == nullptr) {
    live_ = std::make_unique<LiveMirror>(LiveMirror::Options{options_.instance, options_.slo});
    for (const Held& h : held_) {  // under way already
      EnqueueOrder order;
      order.instance = options_.instance;
      order.reservation = h.reservation;
      live_->OnEnqueue(order, now);
    }
  }
  live_->OnMessage(std::move(message), now, effects);
}

void EngineMirror::OnStep(BatchTrace& trace, bool measured) {
  ++counters_.steps;
  if (measured && law_.Observe(trace)) {
    ++counters_.rescaled;
    rebuild_due_ = true;
  }
  for (const BatchTrace::Finish& f : trace.finished)
    std::erase_if(held_, [&](const Held& h) { return h.reservation.request == f.request; });
  Stream(trace, now_);
}

// Another law: the mirror begins anew with it, from the requests that are there.
void EngineMirror::Rebuild(Instant now) {
  rebuild_due_ = false;
  simulator_ = NewSimulator();
  seq_ = 0;
  ++epoch_;
  for (const Held& h : held_) {
    EnqueueOrder order;
    order.instance = options_.instance;
    order.reservation = h.reservation;
    simulator_->OnEnqueue(order, now);
  }
  Snapshot snapshot;
  snapshot.as_of = now;
  snapshot.free_blocks = snapshot.total_blocks = limits_.num_gpu_blocks - 1;
  for (const StepInference::Progress& p : inference_.Requests()) {
    const int32_t computed = p.admitted ? p.prompt + std::max(0, p.generated - 1) : 0;
    (p.admitted ? snapshot.running : snapshot.waiting).push_back({p.request, p.prompt, computed, p.generated, p.cached});
  }
  Stream(std::move(snapshot), now);
}

void EngineMirror::SetLimits(int64_t max_model_len, int64_t kv_blocks, int64_t block_tokens, Instant now) {
  const EngineConfig before = limits_;
  if (max_model_len > 0) limits_.max_model_len = max_model_len;
  if (block_tokens > 0) limits_.block_size = static_cast<int32_t>(std::min<int64_t>(block_tokens, 4096));
  if (kv_blocks > 0) limits_.num_gpu_blocks = static_cast<int32_t>(std::clamp<int64_t>(kv_blocks, 2, 1 << 24));
  const bool same = before.max_model_len == limits_.max_model_len && before.block_size == limits_.block_size &&
                    before.num_gpu_blocks == limits_.num_gpu_blocks;
  if (!same) Rebuild(now);
}

void EngineMirror::OnRestart(Instant now) {
  now_ = now;
  for (const StepInference::Progress& p : inference_.Requests()) inference_.OnGone(p.request);
  std::erase_if(held_, [](const Held& h) { return h.sent; });
  Rebuild(now);
}

}  // namespace foretoken
