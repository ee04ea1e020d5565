#include "integration/engines/openai/step_inference.h"

#include <algorithm>
#include <cmath>

namespace foretoken {
namespace {

Duration Scaled(Duration d, double factor) { return Duration::FromNanos(static_cast<double>(d.nanos()) * factor); }

// A sign that comes so much later than the one before, in steps, belongs to the next step.
constexpr double kGapInSteps = 0.6;
constexpr Duration kLeastGap = Duration::Micros(300);
constexpr int32_t kMostUnseen = 4096;  // steps made up in one go

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
  if (open_ && (l->in_group || now - group_last_ > Gap())) {
    Close(group_last_, sink);
    l = Find(request);
  }
  open_ = true;
  group_last_ = std::max(group_last_, now);
  l->in_group = true;
  if (l->chunks == 0 && !l->admitted) admitted_now_.push_back(request);
  l->chunks += chunks;
  // The first piece is the first token, however many make a later one.
  l->seen = std::max(l->seen + chunks, 1 + static_cast<int32_t>(std::lround((l->chunks - 1) * tokens_per_chunk_)));
}

void StepInference::OnFinished(RequestId request, int32_t output, bool exact, Instant now, Sink& sink) {
  Live* l = Find(request);
  if (l == nullptr || l->done) return;
  if (exact && l->chunks > 1) {
    const double ratio = std::clamp((output - 1.0) / (l->chunks - 1.0), 1.0, 64.0);
    tokens_per_chunk_ += (ratio - tokens_per_chunk_) / 8;
  }
  if (exact && !l->streaming && !AnyStream())
    pace_ = std::clamp(pace_ * std::pow(std::clamp((l->generated + 1.0) / (output + 1.0), 0.1, 10.0), 0.15), 0.01, 100.0);
  l->done = true;
  l->output = std::max(1, output);
  if (!AnyStream()) return EmitEnds(now, sink);
  if (!l->admitted && l->chunks == 0) admitted_now_.push_back(request);
  if (!open_) group_last_ = std::max(now, last_end_);
  open_ = true;
  const bool all_done = std::all_of(live_.begin(), live_.end(), [](const Live& x) { return x.done; });
  if (all_done) Close(group_last_, sink);
}

void StepInference::OnGone(RequestId request) {
  std::erase(admitted_now_, request);
  Erase(request);
  if (live_.empty()) open_ = false;
}

void StepInference::Advance(Instant now, const StepTimeModel& law, Sink& sink) {
  if (open_ && now - group_last_ > Gap()) Close(group_last_, sink);
  if (open_ || AnyStream()) return;
  // Nothing is seen of what is there: it moves on as the law expects.
  for (int32_t i = 0; !live_.empty(); ++i) {
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
    const Instant end = last_end_ + std::max(Duration::Micros(1), Scaled(law.At(shape), pace_));
    if (end > now) return;
    if (i == kMostUnseen) {  // nobody asked for long: what there is to know is that time has passed
      last_end_ = now;
      return;
    }
    for (const Live& l : live_)
      if (!l.admitted && l.sent <= last_end_) admitted_now_.push_back(l.request);
    Emit(0, last_end_, end - last_end_, true, false, sink);
    last_end_ = end;
    admitted_now_.clear();
  }
}

Duration StepInference::Gap() const { return std::max(kLeastGap, Scaled(step_, kGapInSteps * tokens_per_chunk_)); }

// How many steps the tokens that came since the last one stand for: what its streams got on average.
int32_t StepInference::StepsInGroup() const {
  int64_t tokens = 0, streams = 0;
  for (const Live& l : live_) {
    if (!l.streaming || !l.in_group) continue;
    tokens += std::max(1, l.seen - l.generated);
    ++streams;
  }
  return streams == 0 ? 1 : static_cast<int32_t>(std::clamp<int64_t>((tokens + streams / 2) / streams, 1, kMostSteps));
}

// An engine that has room takes in with a step what came before it, in the order in which it came: a request that will speak only at its
// end is in, unless a stream sent before it still waits for its first token.
void StepInference::AdmitSilent() {
  const auto enters = [&](const Live& l) {
    return std::find(admitted_now_.begin(), admitted_now_.end(), l.request) != admitted_now_.end();
  };
  size_t last_speaker = 0;  // position behind the last stream that enters now
  for (size_t i = 0; i < live_.size(); ++i)
    if (live_[i].streaming && enters(live_[i])) last_speaker = i + 1;
  bool stream_waits = false;
  for (size_t i = 0; i < live_.size(); ++i) {
    const Live& l = live_[i];
    if (l.admitted || l.done) continue;
    if (l.streaming) {
      stream_waits |= !enters(l);
    } else if (i < last_speaker || (!stream_waits && l.sent <= last_end_)) {
      if (!enters(l)) admitted_now_.push_back(l.request);
    }
  }
}

void StepInference::Close(Instant end, Sink& sink) {
  AdmitSilent();
  const bool measured = std::any_of(live_.begin(), live_.end(), [](const Live& l) { return l.streaming && l.in_group; });
  if (!measured) {
    EmitEnds(end, sink);
  } else {
    const int32_t steps = StepsInGroup();
    const Duration whole = std::max(Duration::Micros(1), end - last_end_);
    const Duration each = std::max(Duration::Nanos(1), Duration::Nanos(whole.nanos() / steps));
    for (int32_t i = 0; i < steps; ++i) Emit(i, last_end_ + each * i, each, i + 1 == steps, true, sink);
    last_end_ = std::max(end, last_end_);
  }
  open_ = false;
  admitted_now_.clear();
  for (Live& l : live_) l.in_group = false;
}

// Requests have ended, and no step was seen to end with them.
void StepInference::EmitEnds(Instant at, Sink& sink) {
  BatchTrace& t = trace_;
  t = BatchTrace{};
  t.step = next_step_++;
  t.kind = StepKind::kEmpty;
  t.scheduled = t.start = std::max(at, last_end_);
  for (Live& l : live_) {
    if (!l.done) continue;
    if (!l.admitted) t.admitted.push_back({l.request, l.cached, false});
    l.admitted = true;
    t.finished.push_back({l.request, FinishReason::kStop, l.output});
  }
  for (const BatchTrace::Finish& f : t.finished) Erase(f.request);
  for (const Live& l : live_) ++(l.admitted ? t.running : t.waiting);
  if (live_.empty()) last_end_ = t.start;
  sink.OnStep(t, false);
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
