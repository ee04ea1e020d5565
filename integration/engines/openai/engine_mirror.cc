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

// A mid-sized model on a data-centre GPU: 8 ms a step, 20,000 prompt tokens a second. Where an engine is not of that kind, strides
// of the base bring the calibrator (a factor of 4 either way) to it within some steps.
constexpr AffineStepTime::Coefficients kGeneric{8e6, 5e4, 5e4, 50};
constexpr double kStrideAbove = 2.2;
constexpr double kPromptStrideAbove = 3.2;  // what a prompt cost is known less well: only a step's surplus shows it
constexpr int32_t kLeastPrompt = 16;        // tokens in a step, to learn from its prompts

std::unique_ptr<LengthEstimator> NewLengths() {
  auto lengths = MakeLengthEstimator(LengthEstimatorKind::kHint);
  FT_CHECK(lengths.ok());
  return std::move(lengths).value();
}

}  // namespace

EngineMirror::EngineMirror(Options options) : options_(options), base_(kGeneric) {
  limits_.num_gpu_blocks = 1 << 16;  // a million tokens: unknown memory is taken to be ample
  limits_.async_scheduling = false;
  limits_.stop_at_eos = true;
  step_time_.law = std::make_shared<AffineStepTime>(base_);
  simulator_ = NewSimulator();
}

std::unique_ptr<SimulatorCore> EngineMirror::NewSimulator() const {
  SimulatorCore::Options o;
  o.profile.instance = options_.instance;
  o.profile.limits = limits_;
  o.profile.step_time = step_time_;
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
  inference_.Advance(now, step_time_, *this);
  if (rebuild_due_) Rebuild(now);
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
  // Its own reservation has been made since.
  const double prior = 1 + kLoadPrior * (static_cast<double>(held_.size()) - 1);
  for (Duration* d : {&p.ttft, &p.ttft_p90, &p.e2e, &p.e2e_p90, &p.e2e_alone})
    *d = Duration::FromNanos(static_cast<double>(d->nanos()) / prior);
  return p;
}

EnqueueReply EngineMirror::OnEnqueue(const EnqueueOrder& order, Instant now) {
  now_ = now;
  const EnqueueReply reply = simulator_->OnEnqueue(order, now);
  if (!reply.accepted || Find(order.reservation.request) != nullptr) return reply;
  Held h;
  h.reservation = order.reservation;
  h.decided = now;
  if (asked_ == order.reservation.request) {
    h.raw_ttft_ns = asked_ttft_ns_;
    h.cached = asked_cached_;
  }
  held_.push_back(std::move(h));
  return reply;
}

void EngineMirror::OnSent(const RequestMeta& request, bool streaming, Instant now) {
  now_ = now;
  Held* h = Find(request.id);
  if (h == nullptr || h->sent) return;
  h->sent = true;
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
  inference_.Advance(now, step_time_, *this);
  inference_.OnFinished(request, static_cast<int32_t>(std::clamp<int64_t>(output.value(), 1, 1 << 24)), exact, now, *this);
}

void EngineMirror::OnGone(RequestId request, Instant now) {
  now_ = now;
  inference_.OnGone(request);
  std::erase_if(held_, [&](const Held& h) { return h.reservation.request == request; });
  simulator_->OnCancel(request, now);
}

void EngineMirror::OnStep(BatchTrace& trace, bool measured) {
  ++counters_.steps;
  if (measured) Observe(trace);
  for (const BatchTrace::Finish& f : trace.finished)
    std::erase_if(held_, [&](const Held& h) { return h.reservation.request == f.request; });
  Stream(trace, now_);
}

// Coarse: is the base within reach of the calibrator?
void EngineMirror::Observe(const BatchTrace& t) {
  const AffineStepTime law(base_);
  const double seen = static_cast<double>(t.duration.nanos());
  const StepShape shape{t.prefill_tokens, t.prefill_ctx_tokens, t.decode_seqs, t.decode_kv_tokens};
  if (t.prefill_tokens == 0 && t.decode_seqs > 0) {
    ++decode_seen_;
    decode_log_ +=
        (std::log(seen / law.NanosOf(shape)) - decode_log_) / static_cast<double>(std::min<uint64_t>(decode_seen_, 16));
  } else if (t.prefill_tokens >= kLeastPrompt) {
    StepShape rest = shape;
    rest.prefill_tokens = rest.prefill_ctx = 0;
    if (rest.decode_seqs == 0) rest.decode_seqs = 1;
    const double for_prompt = seen - law.NanosOf(rest) * std::exp(decode_log_);
    const double expected = law.NanosOf(shape) - law.NanosOf(rest);
    ++prefill_seen_;
    const double ratio = std::log(std::clamp(for_prompt / std::max(expected, 1.0), 0.02, 1e4));
    prefill_log_ += (ratio - prefill_log_) / static_cast<double>(std::min<uint64_t>(prefill_seen_, 16));
  }
  const double stride = std::log(kStrideAbove);
  const uint64_t least = counters_.rescaled < 4 ? kLeastSeen : kSettledSeen;
  const bool decode_off = decode_seen_ >= least && std::abs(decode_log_) > stride;
  const bool prefill_off = prefill_seen_ >= least && std::abs(prefill_log_) > std::log(kPromptStrideAbove);
  if (!decode_off && !prefill_off) return;
  Rescale(decode_off ? std::exp(decode_log_) : 1, prefill_off ? std::exp(prefill_log_) : 1);
}

void EngineMirror::Rescale(double decode_ratio, double prefill_ratio) {
  base_.step_ns = std::clamp(base_.step_ns * decode_ratio, 1e4, 1e11);
  base_.decode_seq_ns = std::clamp(base_.decode_seq_ns * decode_ratio, 1e1, 1e10);
  base_.kv_token_ns = std::clamp(base_.kv_token_ns * decode_ratio, 1e-3, 1e7);
  base_.prefill_token_ns = std::clamp(base_.prefill_token_ns * prefill_ratio, 1e1, 1e9);
  if (decode_ratio != 1) decode_log_ = 0, decode_seen_ = 0;
  if (prefill_ratio != 1) prefill_log_ = 0, prefill_seen_ = 0;
  step_time_.law = std::make_shared<AffineStepTime>(base_);
  ++counters_.rescaled;
  rebuild_due_ = true;
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
