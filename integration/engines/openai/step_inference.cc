#include "integration/engines/openai/step_inference.h"

#include <algorithm>
#include <cmath>

namespace foretoken {
namespace {

Duration Scaled(Duration d, double factor) { return Duration::FromNanos(static_cast<double>(d.nanos()) * factor); }

// A sign that comes so much later than the one before, in steps, belongs to the next step.
constexpr double kGapInSteps = 0.6;
constexpr Duration kLeastGap = Duration::Micros(300);

}  // namespace

StepInference::Live* StepInference::Find(RequestId request) {
  const auto at = std::find_if(live_.begin(), live_.end(), [&](const Live& l) { return l.request == request; });
  return at == live_.end() ? nullptr : &*at;
}

void StepInference::Erase(RequestId request) {
  const auto at = std::find_if(live_.begin(), live_.end(), [&](const Live& l) { return l.request == request; });
  if (at == live_.end()) return;
  streams_ -= at->streaming ? 1 : 0;
  live_.erase(at);
}

void StepInference::OnSent(const Sent& sent, Instant now) {
  if (Find(sent.request) != nullptr) return;
  if (live_.empty()) last_end_ = std::max(last_end_, now);  // it was idle
  Live l;
  l.request = sent.request;
  l.prompt = std::max(1, sent.prompt);
  l.cached = std::clamp(sent.cached, 0, l.prompt - 1);
  l.streaming = sent.streaming;
  l.sent = now;
  streams_ += l.streaming ? 1 : 0;
  live_.push_back(l);
}

void StepInference::OnOutput(RequestId request, int32_t chunks, Instant now, Sink& sink) {
  Live* l = Find(request);
  if (l == nullptr || l->done || chunks <= 0) return;
  if (open_ && (l->in_group || now - group_last_ > std::max(kLeastGap, Scaled(step_, kGapInSteps)))) {
    Close(group_last_, true, sink);
    l = Find(request);
  }
  open_ = true;
  group_last_ = std::max(group_last_, now);
  l->in_group = true;
  l->chunks += chunks;
  l->seen = std::max(l->seen + chunks, static_cast<int32_t>(std::lround(l->chunks * tokens_per_chunk_)));
  if (!l->admitted && l->chunks == chunks) admitted_now_.push_back(request);
}

void StepInference::OnFinished(RequestId request, int32_t output, bool exact, Instant now, Sink& sink) {
  Live* l = Find(request);
  if (l == nullptr || l->done) return;
  if (exact && l->streaming && l->chunks > 0) {
    const double ratio = std::clamp(static_cast<double>(output) / l->chunks, 1.0, 64.0);
    tokens_per_chunk_ += (ratio - tokens_per_chunk_) / 16;
  }
  if (exact && !l->streaming && !AnyStream() && l->generated > 0)
    pace_ = std::clamp(pace_ * std::pow(static_cast<double>(l->generated) / std::max(1, output), 0.2), 0.05, 20.0);
  if (!l->admitted && l->chunks == 0) admitted_now_.push_back(request);
  l->done = true;
  l->in_group = true;
  l->output = std::max(1, output);
  if (!open_) group_last_ = now;
  group_last_ = std::max(group_last_, last_end_);
  open_ = true;
  const bool all_done = std::all_of(live_.begin(), live_.end(), [](const Live& x) { return x.done; });
  if (all_done) Close(group_last_, true, sink);
}

void StepInference::OnGone(RequestId request) {
  std::erase(admitted_now_, request);
  Erase(request);
  if (live_.empty()) open_ = false;
}

void StepInference::Advance(Instant now, const StepTimeModel& law, Sink& sink) {
  if (open_ && now - group_last_ > std::max(kLeastGap, Scaled(step_, kGapInSteps))) Close(group_last_, true, sink);
  if (open_ || AnyStream()) return;
  // Nothing is seen of what is there: it moves on as the law expects.
  for (int32_t i = 0; i < kMostSteps && !live_.empty(); ++i) {
    StepShape shape;
    for (const Live& l : live_) {
      if (l.admitted) {
        ++shape.decode_seqs;
        shape.decode_kv_tokens += l.prompt + l.generated + 1;
      } else if (l.sent <= last_end_) {
        shape.prefill_tokens += l.prompt - l.cached;
      }
    }
    if (shape.decode_seqs == 0 && shape.prefill_tokens == 0) return;
    const Instant end = last_end_ + Scaled(law.At(shape), pace_);
    if (end > now) return;
    for (const Live& l : live_)
      if (!l.admitted && l.sent <= last_end_) admitted_now_.push_back(l.request);
    Close(end, false, sink);
  }
}

// How many steps the tokens that came since the last one stand for: the most that any stream got.
int32_t StepInference::StepsInGroup() const {
  int32_t steps = 1;
  for (const Live& l : live_)
    if (l.streaming && l.in_group) steps = std::max(steps, l.seen - l.generated);
  return std::min(steps, kMostSteps);
}

// Engines take prompts in the order in which they came: who was sent before one that speaks has been taken in too.
void StepInference::AdmitSilent(Instant end) {
  Instant latest;
  bool any = false;
  for (const RequestId id : admitted_now_) {
    const Live* l = Find(id);
    if (l == nullptr || !l->streaming) continue;
    latest = any ? std::max(latest, l->sent) : l->sent;
    any = true;
  }
  for (const Live& l : live_) {
    if (l.streaming || l.admitted || l.done) continue;
    const bool overtaken = any && l.sent <= latest;
    const bool long_ago = AnyStream() && end - l.sent > step_ * 8;
    const bool listed = std::find(admitted_now_.begin(), admitted_now_.end(), l.request) != admitted_now_.end();
    if ((overtaken || long_ago) && !listed) admitted_now_.push_back(l.request);
  }
}

void StepInference::Close(Instant end, bool measured, Sink& sink) {
  AdmitSilent(end);
  const int32_t steps = measured ? StepsInGroup() : 1;
  const Duration whole = std::max(Duration::Micros(1), end - last_end_);
  const Duration each = std::max(Duration::Nanos(1), Duration::Nanos(whole.nanos() / steps));
  for (int32_t i = 0; i < steps; ++i) Emit(i, last_end_ + each * i, each, i + 1 == steps, measured, sink);
  last_end_ = std::max(end, last_end_);
  open_ = false;
  admitted_now_.clear();
  for (Live& l : live_) l.in_group = false;
}

void StepInference::Emit(int32_t index, Instant start, Duration duration, bool last, bool measured, Sink& sink) {
  BatchTrace& t = trace_;
  t = BatchTrace{};
  t.step = next_step_++;
  t.scheduled = t.start = start;
  t.duration = duration;
  int64_t context = 0;
  for (Live& l : live_) {
    const bool enters =
        index == 0 && !l.admitted && std::find(admitted_now_.begin(), admitted_now_.end(), l.request) != admitted_now_.end();
    if (enters) {
      l.admitted = true;
      l.generated = 1;
      t.admitted.push_back({l.request, l.cached, false});
      t.chunks.push_back({l.request, l.prompt - l.cached, l.cached, true});
      t.prefill_tokens += l.prompt - l.cached;
      ++t.prefill_seqs;
      context += static_cast<int64_t>(l.prompt - l.cached) * l.cached;
      continue;
    }
    if (!l.admitted) {
      ++t.waiting;
      continue;
    }
    // A stream that said nothing may be ahead by one token, no more: it will speak.
    if (l.streaming && l.generated > l.seen) {
      t.skipped.push_back(l.request);
      continue;
    }
    ++l.generated;
    ++t.decode_seqs;
    t.decode_kv_tokens += l.prompt + l.generated;
  }
  if (t.prefill_tokens > 0) t.prefill_ctx_tokens = context / t.prefill_tokens;
  if (last) {
    for (const Live& l : live_)
      if (l.done && l.admitted) t.finished.push_back({l.request, FinishReason::kStop, l.output});
    for (const BatchTrace::Finish& f : t.finished) Erase(f.request);
  }
  for (const Live& l : live_) t.running += l.admitted ? 1 : 0;
  if (measured && t.prefill_tokens == 0 && t.decode_seqs > 0) step_ += Duration::Nanos((duration - step_).nanos() / 8);
  sink.OnStep(t, measured);
}

std::vector<StepInference::Progress> StepInference::Requests() const { return {live_.begin(), live_.end()}; }

}  // namespace foretoken
