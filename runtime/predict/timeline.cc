#include "runtime/predict/timeline.h"

#include <algorithm>

namespace foretoken {
namespace {

constexpr Slot kAsked = 0;
constexpr int kOffsetBits = 14;

}  // namespace

TimelinePredictor::TimelinePredictor(InstanceProfile profile, const LengthEstimator* lengths, TimelineOptions options)
    : profile_(std::move(profile)),
      lengths_(lengths),
      options_(options),
      clock_(profile_.step_time),
      requests_(1),
      slos_{profile_.slo},
      usable_blocks_(profile_.limits.num_gpu_blocks - 1) {}

TimelineSim::World TimelinePredictor::WorldNow() {
  return {&profile_.limits, &clock_, requests_.data(), waiting_.data(), static_cast<uint32_t>(waiting_.size()), head_ns_,
          usable_blocks_,   this};
}

void TimelinePredictor::Rebuild() {
  reach_.CopyFrom(head_);
  reach_.cursor = waiting_front_;
  reach_.peak_used = 0;
  reach_.tokens_taken = 0;
  reach_.kv_bound = false;
  const TimelineSim::World world = WorldNow();
  TimelineSim sim(world, reach_);
  sim.Begin();
  sim.RunUntilQueueEmpty();
  reach_valid_ = true;
}

void TimelinePredictor::Extend() {
  ++counters_.extended;
  const TimelineSim::World world = WorldNow();
  TimelineSim(world, reach_).RunUntilQueueEmpty();
}

Prediction TimelinePredictor::Predict(const PredictQuery& query, Instant now) {
  ++counters_.predictions;
  if (!follows_steps_) AdvanceTo(now);
  if (reach_valid_ && options_.reuse) {
    ++counters_.reused;
  } else {
    ++counters_.rebuilt;
    Rebuild();
  }
  const RequestMeta& meta = *query.request;
  MirrorRequest& asked = requests_[kAsked];
  asked = MirrorRequest{};
  asked.ready_ns = now.nanos();
  asked.prompt = static_cast<int32_t>(std::max<int64_t>(1, meta.prompt_tokens.value()));
  const int64_t room = std::max<int64_t>(1, profile_.limits.max_model_len - asked.prompt);
  asked.total = static_cast<int32_t>(std::clamp<int64_t>(query.expected_output.value(), 1, room));

  TimelineTrack track;
  track.slot = kAsked;
  track.others = query.want_externality;
  work_.CopyFrom(reach_);
  work_.cursor = 0;
  TimelineSim::World world = WorldNow();
  world.waiting = &kAsked;
  world.waiting_size = 1;
  TimelineSim(world, work_).RunUntilEnd(track, options_.most_events);
  if (track.gave_up) ++counters_.gave_up;

  Prediction p;
  Fill(track, query, now, p);
  answers_[next_answer_++ % answers_.size()] = {meta.id.value(), (now + p.ttft).nanos(), (now + p.e2e).nanos()};
  return p;
}

void TimelinePredictor::Fill(const TimelineTrack& track, const PredictQuery& query, Instant now, Prediction& p) {
  const MirrorRequest& asked = requests_[kAsked];
  const Duration lead = Duration::Nanos(head_ns_ - now.nanos()) + profile_.ttft_offset;
  p.predictor = PredictorKind::kTimeline;
  p.ttft = DurationOf(track.first) + lead;
  p.e2e = DurationOf(track.end) + lead;
  p.ttft_p90 = Duration::FromSeconds(p.ttft.seconds() * ttft_error_.factor_p90());
  const int64_t gaps = asked.total - 1;
  Duration decode = p.e2e - p.ttft;
  if (gaps > 0) p.tpot = Duration::Nanos(decode.nanos() / gaps);
  // The length's own 90th percentile, at the pace of the rest.
  if (gaps > 0 && lengths_ != nullptr) {
    LengthKey key{query.request->id, query.request->length_class, std::max(0.9, query.length_quantile),
                  query.request->max_tokens, query.request->output_hint};
    const int64_t long_total = lengths_->Total(key, TokenCount(0)).value();
    if (long_total > asked.total) decode = Duration::Nanos(decode.nanos() / gaps * (long_total - 1));
  }
  p.e2e_p90 = Duration::FromSeconds((p.ttft + decode).seconds() * e2e_error_.factor_p90());
  p.longest_gap = DurationOf(track.longest_gap);
  const double ttft_miss = ttft_error_.Exceeds(p.ttft.seconds(), query.slo.ttft.seconds());
  const double tpot_miss = p.tpot ? e2e_error_.Exceeds(p.tpot->seconds(), query.slo.tpot.seconds()) : 0.0;
  p.slo_violation = 1 - (1 - ttft_miss) * (1 - tpot_miss);
  p.externality = DurationOf(track.others_lost);
  p.slo_violation_added = track.others_violations;
  p.cached_tokens = TokenCount(asked.computed);
  p.kv_headroom = BlockCount(track.least_free);
}

double TimelinePredictor::ViolationAdded(Slot slot, Ticks end, Ticks lost) const {
  const MirrorRequest& r = requests_[slot];
  if (r.total < 2) return 0;
  const int64_t first_ns = r.ready_ns + (r.first_token < 0 ? 0 : int64_t{r.first_token} << kOffsetBits);
  const double gaps = r.total - 1;
  const double tpot = Duration::Nanos(head_ns_ + DurationOf(end).nanos() - first_ns).seconds() / gaps;
  const double later = tpot + DurationOf(lost).seconds() / gaps;
  const double target = slos_[r.slo].tpot.seconds();
  return e2e_error_.Exceeds(later, target) - e2e_error_.Exceeds(tpot, target);
}

}  // namespace foretoken
