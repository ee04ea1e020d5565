#include "runtime/predict/backlog.h"

#include <algorithm>
#include <utility>

namespace foretoken {
namespace {

constexpr uint64_t kSteps = 64;              // steps that a pace remembers
constexpr uint64_t kEnds = 32;               // ends, likewise
constexpr double kFade = 1 - 1.0 / kSteps;   // of the prefill sums, per step with prefill
constexpr int64_t kPriorPrompt = 1000;       // tokens: what the law is asked about before any step came
constexpr int64_t kPriorContext = 8 * 1000;  // KV tokens of eight decodes, likewise

}  // namespace

BacklogPredictor::BacklogPredictor(InstanceProfile profile, const LengthEstimator* lengths)
    : profile_(std::move(profile)), lengths_(lengths), free_blocks_(profile_.limits.num_gpu_blocks - 1) {
  const double decode = profile_.step_time.NanosOf({0, 0, 8, kPriorContext});
  step_ns_.value = decode_ns_.value = decode;
  prefill_tokens_ = kPriorPrompt;
  prefill_ns_ = std::max(0.0, profile_.step_time.NanosOf({kPriorPrompt, 0, 8, kPriorContext}) - decode);
}

void BacklogPredictor::Add(RequestId request, int64_t prefill_left, bool decoding, const Forecast& forecast) {
  if (!known_.Insert(request.value(), {static_cast<int32_t>(prefill_left), decoding, forecast})) return;
  waiting_ += decoding ? 0 : 1;
  prefill_due_ += prefill_left;
}

void BacklogPredictor::OnEnqueue(const Reservation& r, Instant now) {
  Add(r.request, std::max<int64_t>(1, r.prompt_tokens), false, errors_.ForecastOf(r.request, r.expected_output, now));
}

void BacklogPredictor::OnGone(RequestId request, Instant) {
  const Known* k = known_.Find(request.value());
  if (k == nullptr) return;
  waiting_ -= k->decoding ? 0 : 1;
  prefill_due_ -= k->prefill_left;
  known_.Erase(request.value());
}

void BacklogPredictor::Observe(const BatchTrace& t) {
  const auto ns = static_cast<double>(t.duration.nanos());
  step_ns_.Observe(ns, kSteps);
  if (t.prefill_tokens == 0) {
    decode_ns_.Observe(ns, kSteps);
    return;
  }
  prefill_ns_ = kFade * prefill_ns_ + std::max(0.0, ns - (t.decode_seqs > 0 ? decode_ns_.value : 0.0));
  prefill_tokens_ = kFade * prefill_tokens_ + t.prefill_tokens;
}

void BacklogPredictor::OnStep(const BatchTrace& t) {
  if (t.kind != StepKind::kReal) return;
  Observe(t);
  for (const BatchTrace::Admission& a : t.admitted) {
    Known* k = known_.Find(a.request.value());
    if (k == nullptr || a.resumed) continue;
    const int32_t cached = std::min(a.cached, k->prefill_left);
    k->prefill_left -= cached;
    prefill_due_ -= cached;
  }
  for (const BatchTrace::Chunk& c : t.chunks) {
    Known* k = known_.Find(c.request.value());
    if (k == nullptr) continue;
    const int32_t done = c.samples ? k->prefill_left : std::min(c.tokens, k->prefill_left);
    k->prefill_left -= done;
    prefill_due_ -= done;
    if (!c.samples || std::exchange(k->decoding, true)) continue;
    --waiting_;
    errors_.FirstToken(k->forecast, t.end(), profile_.ttft_offset);
  }
  for (const BatchTrace::Finish& f : t.finished) {
    if (const Known* k = known_.Find(f.request.value()); k != nullptr && f.reason != FinishReason::kAborted) {
      errors_.Ended(k->forecast, f.output_tokens, t.end(), profile_.ttft_offset);
    }
    // Several ends in one step are as many intervals that sum to the time since the last one.
    const Instant before = std::exchange(last_end_, t.end());
    if (before != Instant()) between_ends_ns_.Observe(static_cast<double>((t.end() - before).nanos()), kEnds);
    OnGone(f.request, t.end());
  }
  for (RequestId id : t.cancelled) OnGone(id, t.end());
  free_blocks_ = t.free_blocks;
}

void BacklogPredictor::OnAggregate(const AggregateState& state, const BatchTrace* step) {
  if (step != nullptr) Observe(*step);
  free_blocks_ = state.free_blocks;
}

void BacklogPredictor::OnSnapshot(const Snapshot& snapshot, Instant, const std::vector<Reservation>& reservations) {
  const IdMap<Known> before = std::exchange(known_, IdMap<Known>());
  waiting_ = 0;
  prefill_due_ = 0;
  for (const auto* list : {&snapshot.running, &snapshot.waiting}) {
    for (const Snapshot::Request& s : *list) {
      const Known* old = before.Find(s.request.value());
      const int32_t left = s.generated_tokens > 0 ? 0 : std::max(1, s.prompt_tokens - s.computed_tokens);
      Add(s.request, left, s.generated_tokens > 0, old != nullptr ? old->forecast : Forecast{});
    }
  }
  for (const Reservation& r : reservations) OnEnqueue(r, r.arrival);
  free_blocks_ = snapshot.free_blocks;
}

// Until one of the running makes room for a request behind all that wait, in nanoseconds.
double BacklogPredictor::SeatWait() const {
  const auto over = static_cast<int64_t>(known_.size()) + 1 - profile_.limits.max_num_seqs;
  return over <= 0 || between_ends_ns_.seen < 2 ? 0 : static_cast<double>(over) * between_ends_ns_.value;
}

Prediction BacklogPredictor::Predict(const PredictQuery& query, Instant) {
  const auto prompt = static_cast<double>(std::max<int64_t>(1, query.request->prompt_tokens.value()));
  const double per_token = prefill_ns_ / prefill_tokens_;
  // A step under way has half of itself to go, in the mean.
  const double rest = known_.size() > 0 ? step_ns_.value / 2 : 0;
  const double first = rest + SeatWait() + (static_cast<double>(prefill_due_) + prompt) * per_token + decode_ns_.value;
  const auto gaps = static_cast<double>(query.expected_output.value() - 1);
  Prediction p;
  p.predictor = PredictorKind::kLedger;
  p.ttft = Duration::FromNanos(first) + profile_.ttft_offset;
  p.e2e = p.e2e_alone = p.ttft + Duration::FromNanos(gaps * step_ns_.value);
  if (gaps > 0) p.tpot = Duration::FromNanos(step_ns_.value);
  p.longest_gap = p.tpot.value_or(Duration());
  // Its prefill delays everybody there.
  if (query.want_externality) p.externality = Duration::FromNanos(prompt * per_token * static_cast<double>(known_.size()));
  const int64_t tokens = query.request->prompt_tokens.value() + query.expected_output.value() + prefill_due_;
  p.kv_headroom = BlockCount(free_blocks_ - (tokens + profile_.limits.block_size - 1) / profile_.limits.block_size);
  errors_.Fill(query, lengths_, p);
  errors_.Answered(query.request->id, p);
  return p;
}

}  // namespace foretoken
