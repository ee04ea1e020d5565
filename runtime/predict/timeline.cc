#include "runtime/predict/timeline.h"

#include <algorithm>
#include <bit>

namespace foretoken {
namespace {

constexpr Slot kAsked = 0;

}  // namespace

TimelinePredictor::TimelinePredictor(InstanceProfile profile, const LengthEstimator* lengths, TimelineOptions options)
    : profile_(std::move(profile)),
      lengths_(lengths),
      options_(options),
      step_time_(profile_.step_time, profile_.calibrate),
      clock_(profile_.step_time),
      requests_(1),
      slos_{profile_.slo},
      usable_blocks_(profile_.limits.num_gpu_blocks - 1),
      prefixes_(profile_.limits) {
  const EngineConfig& limits = profile_.limits;
  world_.limits = &limits;
  world_.clock = &clock_;
  world_.judge = this;
  const auto size = static_cast<uint32_t>(limits.block_size);
  if (std::has_single_bit(size)) world_.block_shift = std::countr_zero(size);
  world_.most_seqs =
      limits.max_num_active_seqs > 0 ? std::min(limits.max_num_seqs, limits.max_num_active_seqs) : limits.max_num_seqs;
  world_.watermark = static_cast<int64_t>(limits.watermark * static_cast<double>(limits.num_gpu_blocks));
}

TimelineSim::World TimelinePredictor::WorldNow() {
  world_.requests = requests_.data();
  world_.waiting = waiting_.data();
  world_.waiting_size = static_cast<uint32_t>(waiting_.size());
  world_.head_ns = head_ns_;
  world_.latest_ready = TicksOf(Duration::Nanos(latest_ready_ns_ - head_ns_));
  world_.usable_blocks = usable_blocks_;
  return world_;
}

ExpectedArrivals TimelinePredictor::ArrivalsAt(Instant now) {
  const ArrivalRate::Expected e = arrival_rate_.At(now);
  if (!profile_.expected_arrivals || e.per_second <= 0) return {};
  const int64_t seqs = std::max(1, head_.decoding());
  const int64_t kv = std::max<int64_t>(head_.kv, seqs);
  const auto prompt = static_cast<int64_t>(e.prompt_tokens + 1);
  const Ticks decode = clock_.Decode(seqs, kv).Sum(kv, 1);
  constexpr int64_t kMore = 8;  // sequences, over which the cost of one is taken
  ExpectedArrivals a;
  a.per_tick = e.per_second / static_cast<double>(TicksOf(Duration::Seconds(1)));
  // Beyond this share of all time the queue grows, and no steady flow describes that.
  constexpr double kMostPrefill = 0.75;
  const auto prefill = static_cast<double>(std::max<Ticks>(0, clock_.Mixed({prompt, 0, seqs, kv}) - decode));
  a.stretch = 1 / (1 - std::min(kMostPrefill, a.per_tick * prefill));
  a.seq_ticks = static_cast<double>(std::max<Ticks>(0, clock_.Decode(seqs + kMore, kv).Sum(kv, 1) - decode)) / kMore;
  a.context_tokens = e.prompt_tokens + e.output_tokens / 2;
  a.output_tokens = e.output_tokens;
  return a;
}

void TimelinePredictor::Rebuild() {
  reach_.CopyFrom(head_);
  reach_.cursor = waiting_front_;
  reach_.peak_tokens = 0;
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

TimelineTrack TimelinePredictor::RunAsked(RequestId id, int64_t prompt, int64_t output,
                                          const std::vector<PromptSegment>& segments, bool others, Instant now) {
  if (!reach_valid_ || !options_.reuse) Rebuild();
  MirrorRequest& asked = requests_[kAsked];
  asked = MirrorRequest{};
  asked.ready_ns = now.nanos();
  asked.prompt = static_cast<int32_t>(std::max<int64_t>(1, prompt));
  const int64_t room = std::max<int64_t>(1, profile_.limits.max_model_len - asked.prompt);
  asked.total = static_cast<int32_t>(std::clamp<int64_t>(output, 1, room));
  asked.computed = prefixes_.ExpectedCached({id, asked.prompt, asked.total, &segments});

  TimelineTrack track;
  track.slot = kAsked;
  track.others = others;
  work_.CopyFrom(reach_);
  work_.cursor = 0;
  TimelineSim::World world = WorldNow();
  world.waiting = &kAsked;
  world.waiting_size = 1;
  world.latest_ready = TicksOf(now - Instant::FromNanos(head_ns_));
  world.arrivals = ArrivalsAt(now);
  track.asked = world.latest_ready;
  TimelineSim(world, work_).RunUntilEnd(track, options_.most_events);
  if (track.gave_up) ++counters_.gave_up;
  return track;
}

Prediction TimelinePredictor::Predict(const PredictQuery& query, Instant now) {
  ++counters_.predictions;
  if (!follows_steps_) AdvanceTo(now);
  ++(reach_valid_ && options_.reuse ? counters_.reused : counters_.rebuilt);
  const RequestMeta& meta = *query.request;
  const TimelineTrack track =
      RunAsked(meta.id, meta.prompt_tokens.value(), query.expected_output.value(), meta.segments, query.want_externality, now);
  Prediction p;
  Fill(track, query, now, p);
  answers_[next_answer_++ % answers_.size()] = {meta.id.value(), events_, now, p.ttft, p.e2e};
  return p;
}

// What is expected of a request as it is assigned: the error is learnt from it when its tokens come. Whether somebody asked
// before makes no difference, except in time.
void TimelinePredictor::NotePrediction(const Reservation& r, Instant now, MirrorRequest& m) {
  Answer a;
  for (const Answer& known : answers_) {
    if (known.id == r.request.value() && known.event == events_ && known.now == now) a = known;
  }
  if (a.event == 0) {
    const TimelineTrack track = RunAsked(r.request, r.prompt_tokens, r.expected_output, r.segments, false, now);
    const Duration lead = Duration::Nanos(head_ns_ - now.nanos()) + profile_.ttft_offset;
    a.ttft = DurationOf(track.first) + lead;
    a.e2e = DurationOf(track.end) + lead;
  }
  m.first_token = OffsetOf(a.ttft);
  m.predicted_end = OffsetOf(a.e2e);
}

void TimelinePredictor::Fill(const TimelineTrack& track, const PredictQuery& query, Instant now, Prediction& p) {
  const MirrorRequest& asked = requests_[kAsked];
  const Duration lead = Duration::Nanos(head_ns_ - now.nanos()) + profile_.ttft_offset;
  p.predictor = PredictorKind::kTimeline;
  p.ttft = DurationOf(track.first) + lead;
  p.e2e_alone = DurationOf(track.end) + lead;
  p.e2e = p.e2e_alone + DurationOf(track.drag);
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
  const int64_t bs = profile_.limits.block_size;
  p.kv_headroom =
      BlockCount(track.least_free_tokens >= 0 ? track.least_free_tokens / bs : -((bs - 1 - track.least_free_tokens) / bs));
}

double TimelinePredictor::ViolationAdded(Slot slot, Ticks end, Ticks lost) const {
  const MirrorRequest& r = requests_[slot];
  if (r.total < 2) return 0;
  const int64_t first_ns = r.ready_ns + (r.first_token < 0 ? 0 : DurationOfOffset(r.first_token).nanos());
  const double gaps = r.total - 1;
  const double tpot = Duration::Nanos(head_ns_ + DurationOf(end).nanos() - first_ns).seconds() / gaps;
  const double later = tpot + DurationOf(lost).seconds() / gaps;
  const double target = slos_[r.slo].tpot.seconds();
  return e2e_error_.Exceeds(later, target) - e2e_error_.Exceeds(tpot, target);
}

}  // namespace foretoken
