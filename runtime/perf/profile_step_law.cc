#include "runtime/perf/profile_step_law.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace foretoken {
namespace {

// A batch waits for its longest sequence: one thread block per sequence and KV head walks the whole context, and the last ones
// alone cannot use the full memory bandwidth. Counted as this share of the distance from the mean to the longest context.
// Published measurements of uneven batches put the share at 0.05 when it also covers the curvature that averaging over the
// contexts covers here; a quarter of that is left for the wait alone.
constexpr double kStragglerShare = 0.0125;

struct Cell {
  size_t i = 0;
  double w = 0;  // 0..1 inside, beyond it outside
};

Cell Locate(const std::vector<int64_t>& axis, double x) {
  if (axis.size() == 1) return {0, 0};
  const auto it = std::upper_bound(axis.begin(), axis.end(), x, [](double v, int64_t a) { return v < static_cast<double>(a); });
  const size_t after = static_cast<size_t>(it - axis.begin());
  const size_t i = std::clamp<size_t>(after, 1, axis.size() - 1) - 1;
  const double low = static_cast<double>(axis[i]);
  return {i, (x - low) / (static_cast<double>(axis[i + 1]) - low)};
}

// Linear along the row, flat below its first point, continued beyond its last.
double AlongRow(const std::vector<int64_t>& axis, const std::vector<double>& row, double x) {
  if (x <= static_cast<double>(axis[0]) || axis.size() == 1) return row[0];
  const Cell c = Locate(axis, x);
  return row[c.i] + c.w * (row[c.i + 1] - row[c.i]);
}

Status CheckAxis(const std::vector<int64_t>& axis, const char* name, bool from_zero) {
  if (axis.empty()) return Error{std::string(name) + ": no measured points"};
  if (from_zero && (axis[0] != 0 || axis.size() < 2)) return Error{std::string(name) + ": needs the point 0 and one more"};
  for (size_t i = 1; i < axis.size(); ++i) {
    if (axis[i] <= axis[i - 1]) return Error{std::string(name) + ": points must ascend"};
  }
  return {};
}

}  // namespace

StepShape StepComposition::Shape() const {
  StepShape s;
  int64_t weighted = 0;
  for (const Chunk& c : chunks) {
    s.prefill_tokens += c.tokens;
    weighted += c.tokens * c.computed;
  }
  if (s.prefill_tokens > 0) s.prefill_ctx = (weighted + s.prefill_tokens / 2) / s.prefill_tokens;
  s.decode_seqs = static_cast<int64_t>(decode_ctx.size());
  for (int64_t c : decode_ctx) s.decode_kv_tokens += c;
  return s;
}

Result<ProfileStepLaw> ProfileStepLaw::Make(LayerProfile p) {
  for (const Status& s :
       {CheckAxis(p.tokens, "dense layers: tokens", false), CheckAxis(p.sequences, "per-sequence layers: sequences", false),
        CheckAxis(p.chunk, "attention: prefill_chunk", true), CheckAxis(p.kv_prefill, "attention: kv_prefill", false),
        CheckAxis(p.decode_seqs, "attention: n_decode", true), CheckAxis(p.kv_decode, "attention: kv_decode", false)}) {
    if (!s.ok()) return s.error();
  }
  const size_t attention = p.chunk.size() * p.kv_prefill.size() * p.decode_seqs.size() * p.kv_decode.size();
  if (p.token_ns.size() != p.tokens.size() || p.sequence_ns.size() != p.sequences.size() ||
      p.attention_ns.size() != attention) {
    return Error{"a layer profile whose numbers of times do not match its axes"};
  }
  return ProfileStepLaw(std::move(p));
}

double ProfileStepLaw::TokenNanos(int64_t tokens) const {
  const auto it = std::lower_bound(p_.tokens.begin(), p_.tokens.end(), tokens);
  if (it != p_.tokens.end()) return p_.token_ns[static_cast<size_t>(it - p_.tokens.begin())];
  return p_.token_ns.back() * static_cast<double>(tokens) / static_cast<double>(p_.tokens.back());
}

double ProfileStepLaw::SequenceNanos(int64_t sequences) const {
  if (sequences <= 0) return 0;
  return AlongRow(p_.sequences, p_.sequence_ns, static_cast<double>(sequences));
}

void ProfileStepLaw::AttentionRow(double tokens, double ctx, double seqs, std::vector<double>& row) const {
  const Cell p = Locate(p_.chunk, tokens), k = Locate(p_.kv_prefill, ctx), n = Locate(p_.decode_seqs, seqs);
  row.assign(p_.kv_decode.size(), 0.0);
  for (size_t corner = 0; corner < 8; ++corner) {
    const size_t a = corner & 1, b = corner >> 1 & 1, d = corner >> 2;
    const double weight = (a ? p.w : 1 - p.w) * (b ? k.w : 1 - k.w) * (d ? n.w : 1 - n.w);
    if (weight == 0) continue;
    const double* from = &p_.attention_ns[p_.AttentionIndex(p.i + a, k.i + b, n.i + d, 0)];
    for (size_t c = 0; c < row.size(); ++c) row[c] += weight * from[c];
  }
}

double ProfileStepLaw::ChunkAlone(double tokens, double ctx) const {
  const Cell p = Locate(p_.chunk, tokens), k = Locate(p_.kv_prefill, ctx);
  const auto at = [&](size_t a, size_t b) { return p_.attention_ns[p_.AttentionIndex(p.i + a, k.i + b, 0, 0)]; };
  const size_t next = p_.kv_prefill.size() > 1 ? 1 : 0;
  const double low = at(0, 0) + k.w * (at(0, next) - at(0, 0));
  const double high = at(1, 0) + k.w * (at(1, next) - at(1, 0));
  return low + p.w * (high - low);
}

double ProfileStepLaw::NanosOf(const StepShape& s) const {
  if (s.prefill_tokens == 0) {
    if (s.decode_seqs == 0) return 0;
    const DecodeSegment segment = DecodeSegmentAt(s.decode_seqs, s.decode_kv_tokens);
    return segment.base_ns + segment.per_kv_token_ns * static_cast<double>(s.decode_kv_tokens);
  }
  double ns = TokenNanos(s.prefill_tokens + s.decode_seqs) + SequenceNanos(s.decode_seqs + 1);
  if (s.decode_seqs == 0) return ns + ChunkAlone(static_cast<double>(s.prefill_tokens), static_cast<double>(s.prefill_ctx));
  std::vector<double> row;
  const double seqs = static_cast<double>(s.decode_seqs);
  AttentionRow(static_cast<double>(s.prefill_tokens), static_cast<double>(s.prefill_ctx), seqs, row);
  return ns + AlongRow(p_.kv_decode, row, static_cast<double>(s.decode_kv_tokens) / seqs);
}

DecodeSegment ProfileStepLaw::DecodeSegmentAt(int64_t decode_seqs, int64_t kv) const {
  std::vector<double> row;
  AttentionRow(0, 0, static_cast<double>(decode_seqs), row);
  DecodeSegment s;
  const double fixed = TokenNanos(decode_seqs) + SequenceNanos(decode_seqs);
  const std::vector<int64_t>& axis = p_.kv_decode;
  if (kv < axis[0] * decode_seqs || axis.size() == 1) {  // flat below the first measured context
    s.base_ns = fixed + row[0];
    if (axis.size() > 1) s.kv_until = axis[0] * decode_seqs;
    return s;
  }
  size_t i = 0;
  while (i + 2 < axis.size() && kv >= axis[i + 1] * decode_seqs) ++i;
  s.kv_from = axis[i] * decode_seqs;
  if (i + 2 < axis.size()) s.kv_until = axis[i + 1] * decode_seqs;
  s.per_kv_token_ns = (row[i + 1] - row[i]) / static_cast<double>((axis[i + 1] - axis[i]) * decode_seqs);
  s.base_ns = fixed + row[i] - s.per_kv_token_ns * static_cast<double>(s.kv_from);
  return s;
}

double ProfileStepLaw::NanosOf(const StepComposition& step) const {
  const StepShape s = step.Shape();
  if (s.prefill_tokens == 0 && s.decode_seqs == 0) return 0;
  int64_t sampled = s.decode_seqs;
  for (const StepComposition::Chunk& c : step.chunks) sampled += c.samples;
  double ns = TokenNanos(s.prefill_tokens + s.decode_seqs) + SequenceNanos(sampled);
  for (const StepComposition::Chunk& c : step.chunks) {
    ns += ChunkAlone(static_cast<double>(c.tokens), static_cast<double>(c.computed));
  }
  if (s.decode_seqs == 0) return ns;
  const double tokens = static_cast<double>(s.prefill_tokens), ctx = static_cast<double>(s.prefill_ctx);
  std::vector<double> row;
  AttentionRow(tokens, ctx, static_cast<double>(s.decode_seqs), row);
  if (s.prefill_tokens > 0) ns -= ChunkAlone(tokens, ctx);  // the joint figure holds it once as one chunk
  double sum = 0, longest = 0;
  for (int64_t c : step.decode_ctx) {
    sum += AlongRow(p_.kv_decode, row, static_cast<double>(c));
    longest = std::max(longest, static_cast<double>(c));
  }
  const double seqs = static_cast<double>(s.decode_seqs);
  const double mean = static_cast<double>(s.decode_kv_tokens) / seqs;
  const double wait =
      AlongRow(p_.kv_decode, row, mean + kStragglerShare * (longest - mean)) - AlongRow(p_.kv_decode, row, mean);
  return ns + sum / seqs + wait;
}

}  // namespace foretoken
