#include "runtime/perf/step_time_table.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "runtime/base/check.h"

namespace foretoken {
namespace {

// No query reaches it (2^40 tokens), so the last cell of an axis is its linear continuation.
constexpr double kFar = 1099511627776.0;
// What a continuation towards 0 never falls below, as a share of the first measured value.
constexpr double kFloorShare = 0.05;

std::string Number(double x) {
  std::string s = std::to_string(x);
  return s.substr(0, s.find_last_not_of("0.") == std::string::npos ? s.size() : s.find('.') + 3);
}

Status CheckAxis(const std::vector<int64_t>& axis, const char* name, bool from_zero) {
  if (axis.empty()) return Error{std::string(name) + " has no points: at least one is needed"};
  if (from_zero && axis[0] != 0) {
    return Error{std::string(name) + " starts at " + std::to_string(axis[0]) + ": its first point must be 0"};
  }
  if (!from_zero && axis[0] < 1) return Error{std::string(name) + " starts at " + std::to_string(axis[0]) + ": must be >= 1"};
  for (size_t i = 1; i < axis.size(); ++i) {
    if (axis[i] <= axis[i - 1]) {
      return Error{std::string(name) + " goes from " + std::to_string(axis[i - 1]) + " to " + std::to_string(axis[i]) +
                   ": points must ascend"};
    }
  }
  if (static_cast<double>(axis.back()) >= kFar) return Error{std::string(name) + ": points must be below 2^40"};
  return {};
}

// Visits every pair (lower, higher) of values that a monotone table must have in this order, lower ones first: f(lower, higher)
// gets references into the grid. Extra times of a chunk's context are compared as they are used: alone(ctx) - alone(0).
template <class Grid, class F>
void ForNeighbours(Grid& g, F&& f) {
  const size_t np = g.prefill_tokens.size(), nd = g.decode_seqs.size(), nc = g.decode_ctx.size();
  for (size_t p = 1; p < np; ++p) {
    if (p > 1) f(g.alone_ns[g.AloneIndex(p - 1, 0)], g.alone_ns[g.AloneIndex(p, 0)], p);
  }
  for (size_t p = 0; p < np; ++p) {
    for (size_t d = 0; d < nd; ++d) {
      for (size_t c = 0; c < nc; ++c) {
        auto& here = g.mixed_ns[g.MixedIndex(p, d, c)];
        if (p > 0) f(g.mixed_ns[g.MixedIndex(p - 1, d, c)], here, p);
        if (d > 0) f(g.mixed_ns[g.MixedIndex(p, d - 1, c)], here, p);
        if (c > 0) f(g.mixed_ns[g.MixedIndex(p, d, c - 1)], here, p);
        if (p > 0 && d == 0 && c == 0) f(g.alone_ns[g.AloneIndex(p, 0)], here, p);
      }
    }
  }
}

// The smallest monotone surface above the values (up) or the largest below them: running maxima in the order of the axes, or
// running minima against it.
void Close(StepTableGrid& g, bool up) {
  if (up) {
    ForNeighbours(g, [](double& low, double& high, size_t) { high = std::max(high, low); });
    return;
  }
  std::vector<std::pair<double*, double*>> pairs;
  ForNeighbours(g, [&pairs](double& low, double& high, size_t) { pairs.emplace_back(&low, &high); });
  std::reverse(pairs.begin(), pairs.end());
  for (auto& [low, high] : pairs) *low = std::min(*low, *high);
}

// extra[p][x] = alone(p, x) - alone(p, 0) for the rows 1.., made >= 0 and monotone (in the middle of both closures).
std::vector<double> MonotoneExtra(const StepTableGrid& g, const std::vector<double>& alone) {
  const size_t np = g.prefill_tokens.size(), nx = g.prefill_ctx.size();
  std::vector<double> up(np * nx, 0.0);
  for (size_t p = 1; p < np; ++p) {
    for (size_t x = 1; x < nx; ++x) up[p * nx + x] = std::max(0.0, alone[p * nx + x] - alone[p * nx]);
  }
  std::vector<double> down = up;
  for (size_t p = 1; p < np; ++p) {
    for (size_t x = 1; x < nx; ++x) up[p * nx + x] = std::max({up[p * nx + x], up[p * nx + x - 1], up[(p - 1) * nx + x]});
  }
  for (size_t p = np; p-- > 1;) {
    for (size_t x = nx; x-- > 1;) {
      double& here = down[p * nx + x];
      if (p + 1 < np) here = std::min(here, down[(p + 1) * nx + x]);
      if (x + 1 < nx) here = std::min(here, down[p * nx + x + 1]);
    }
  }
  for (size_t i = 0; i < up.size(); ++i) up[i] = 0.5 * (up[i] + down[i]);
  return up;
}

Status CheckValues(const StepTableGrid& g) {
  const size_t mixed = g.prefill_tokens.size() * g.decode_seqs.size() * g.decode_ctx.size();
  const size_t alone = g.prefill_tokens.size() * g.prefill_ctx.size();
  if (g.mixed_ns.size() != mixed || g.alone_ns.size() != alone) {
    return Error{"the grid needs " + std::to_string(mixed) + " times with decodes and " + std::to_string(alone) +
                 " without, found " + std::to_string(g.mixed_ns.size()) + " and " + std::to_string(g.alone_ns.size())};
  }
  const auto bad = [](double t) { return !(t > 0) || !std::isfinite(t); };
  for (double t : g.mixed_ns) {
    if (bad(t)) return Error{"a step time of " + std::to_string(t) + " ns: must be > 0"};
  }
  for (size_t i = g.prefill_ctx.size(); i < alone; ++i) {
    if (bad(g.alone_ns[i])) return Error{"a step time of " + std::to_string(g.alone_ns[i]) + " ns: must be > 0"};
  }
  return {};
}

Status CheckMonotone(const StepTableGrid& g) {
  Status status;
  ForNeighbours(g, [&](const double& low, const double& high, size_t p) {
    if (low <= high || !status.ok()) return;
    status = Error{"step times fall from " + Number(low / 1e3) + " to " + Number(high / 1e3) + " us beside prefill_tokens " +
                   std::to_string(g.prefill_tokens[p]) +
                   ": a table never falls along an axis (`foretoken table import` repairs it)"};
  });
  if (!status.ok()) return status;
  const size_t nx = g.prefill_ctx.size();
  for (size_t p = 1; p < g.prefill_tokens.size(); ++p) {
    for (size_t x = 1; x < nx; ++x) {
      const double extra = g.alone_ns[p * nx + x] - g.alone_ns[p * nx];
      const double before = p > 1 ? g.alone_ns[(p - 1) * nx + x] - g.alone_ns[(p - 1) * nx] : 0.0;
      // Sums and differences of rounded figures: a ten-thousandth of the step is no fall.
      const double slack = 1e-4 * g.alone_ns[p * nx + x];
      if (g.alone_ns[p * nx + x] + slack < g.alone_ns[p * nx + x - 1] || extra + slack < before) {
        return Error{"the time that a context of " + std::to_string(g.prefill_ctx[x]) +
                     " tokens adds falls at prefill_tokens " + std::to_string(g.prefill_tokens[p]) +
                     ": a table never falls along an axis (`foretoken table import` repairs it)"};
      }
    }
  }
  return {};
}

double Lerp(double a, double b, double w) { return a + w * (b - a); }

}  // namespace

int64_t MakeMonotone(StepTableGrid& grid) {
  FT_CHECK(CheckValues(grid).ok());
  const StepTableGrid before = grid;
  const std::vector<double> extra = MonotoneExtra(grid, grid.alone_ns);
  StepTableGrid below = grid;
  Close(grid, true);
  Close(below, false);
  for (size_t i = 0; i < grid.mixed_ns.size(); ++i) grid.mixed_ns[i] = 0.5 * (grid.mixed_ns[i] + below.mixed_ns[i]);
  const size_t nx = grid.prefill_ctx.size();
  for (size_t p = 1; p < grid.prefill_tokens.size(); ++p) {
    double& alone = grid.alone_ns[p * nx];
    alone = 0.5 * (alone + below.alone_ns[p * nx]);
    for (size_t x = 1; x < nx; ++x) grid.alone_ns[p * nx + x] = alone + extra[p * nx + x];
  }
  int64_t changed = 0;
  const auto differ = [](double a, double b) { return std::abs(a - b) > 1e-9 * b; };
  for (size_t i = 0; i < grid.mixed_ns.size(); ++i) changed += differ(grid.mixed_ns[i], before.mixed_ns[i]);
  for (size_t i = nx; i < grid.alone_ns.size(); ++i) changed += differ(grid.alone_ns[i], before.alone_ns[i]);
  return changed;
}

StepTimeTable::Axis::Axis(const std::vector<int64_t>& points) {
  for (int64_t x : points) at.push_back(static_cast<double>(x));
  at.push_back(kFar);
  for (size_t i = 0; i + 1 < at.size(); ++i) inverse_width.push_back(1.0 / (at[i + 1] - at[i]));
}

size_t StepTimeTable::Axis::CellOf(double x) const {
  // Branch-free binary search for the last point <= x among those that start a cell.
  const double* base = at.data();
  size_t n = inverse_width.size();
  while (n > 1) {
    const size_t half = n / 2;
    base += (base[half] <= x) ? half : 0;
    n -= half;
  }
  return static_cast<size_t>(base - at.data());
}

namespace {
std::vector<int64_t> WithFirst(std::vector<int64_t> axis, int64_t first) {
  if (axis.front() != first) axis.insert(axis.begin(), first);
  return axis;
}
// The line through (x0, y0), (x1, y1) at x <= x0: not above y0 and not below a floor.
double TowardsZero(double x, double x0, double y0, double x1, double y1) {
  return std::clamp(y0 - (y1 - y0) / (x1 - x0) * (x0 - x), kFloorShare * y0, y0);
}
}  // namespace

Result<StepTimeTable> StepTimeTable::Make(StepTableGrid grid) {
  for (const Status& s :
       {CheckAxis(grid.prefill_tokens, "prefill_tokens", true), CheckAxis(grid.prefill_ctx, "prefill_ctx", true),
        CheckAxis(grid.decode_seqs, "decode_seqs", false), CheckAxis(grid.decode_ctx, "decode_ctx", false)}) {
    if (!s.ok()) return s.error();
  }
  if (Status s = CheckValues(grid); !s.ok()) return s.error();
  if (Status s = CheckMonotone(grid); !s.ok()) return s.error();
  return StepTimeTable(std::move(grid));
}

StepTimeTable::StepTimeTable(StepTableGrid grid)
    : grid_(std::move(grid)),
      p_(grid_.prefill_tokens),
      x_(grid_.prefill_ctx),
      d_(WithFirst(grid_.decode_seqs, 1)),
      c_(WithFirst(grid_.decode_ctx, 0)) {
  FillAlone();
  FillMixed();
  FillExtra();
}

// alone_: the measured column of prefill_ctx 0, its continuation to 0 tokens, and the far point.
void StepTimeTable::FillAlone() {
  const size_t n = grid_.prefill_tokens.size();
  alone_.assign(n + 1, 0.0);
  for (size_t p = 1; p < n; ++p) alone_[p] = grid_.alone_ns[grid_.AloneIndex(p, 0)];
  if (n == 1) {  // pure-decode tables: a prompt costs at least what the smallest decode step costs
    alone_[0] = alone_[1] = grid_.mixed_ns[0];
    return;
  }
  alone_[0] = n > 2 ? TowardsZero(0, p_.at[1], alone_[1], p_.at[2], alone_[2]) : alone_[1];
  alone_[n] = alone_[n - 1] + (alone_[n - 1] - alone_[n - 2]) * p_.inverse_width[n - 2] * (kFar - p_.at[n - 1]);
}

// mixed_: the measured grid; continued down to 1 sequence and context 0; continued linearly to the far points. At the corners of
// two continuations the increments add up. A last running maximum touches added points only, since the measured ones ascend.
void StepTimeTable::FillMixed() {
  const size_t np = p_.at.size(), nd = d_.at.size(), nc = c_.at.size();
  const size_t d0 = nd - 1 - grid_.decode_seqs.size(),
               c0 = nc - 1 - grid_.decode_ctx.size();  // 1 where a first point was added
  mixed_.assign(np * nd * nc, 0.0);
  for (size_t p = 0; p + 1 < np; ++p) {
    for (size_t d = d0; d + 1 < nd; ++d) {
      for (size_t c = c0; c + 1 < nc; ++c) mixed_[Mixed(p, d, c)] = grid_.mixed_ns[grid_.MixedIndex(p, d - d0, c - c0)];
      if (c0 == 0) continue;
      const double first = mixed_[Mixed(p, d, 1)];
      mixed_[Mixed(p, d, 0)] = nc > 3 ? TowardsZero(0, c_.at[1], first, c_.at[2], mixed_[Mixed(p, d, 2)]) : first;
    }
    for (size_t c = 0; d0 == 1 && c + 1 < nc; ++c) {
      const double first = mixed_[Mixed(p, 1, c)];
      mixed_[Mixed(p, 0, c)] = nd > 3 ? TowardsZero(1, d_.at[1], first, d_.at[2], mixed_[Mixed(p, 2, c)]) : first;
    }
  }
  // Growth per unit beyond the end of an axis at the clamped point of the others.
  const auto slope = [](const Axis& axis, double last, double before) {
    return axis.at.size() > 2 ? (last - before) * axis.inverse_width[axis.at.size() - 3] : 0.0;
  };
  for (size_t p = 0; p < np; ++p) {
    for (size_t d = 0; d < nd; ++d) {
      for (size_t c = 0; c < nc; ++c) {
        const size_t ip = std::min(p, np - 2), id = std::min(d, nd - 2), ic = std::min(c, nc - 2);
        const double inner = mixed_[Mixed(ip, id, ic)];
        double t = inner;
        if (p != ip) t += slope(p_, inner, ip > 0 ? mixed_[Mixed(ip - 1, id, ic)] : inner) * (kFar - p_.at[ip]);
        if (d != id) t += slope(d_, inner, id > 0 ? mixed_[Mixed(ip, id - 1, ic)] : inner) * (kFar - d_.at[id]);
        if (c != ic) t += slope(c_, inner, ic > 0 ? mixed_[Mixed(ip, id, ic - 1)] : inner) * (kFar - c_.at[ic]);
        if (p > 0) t = std::max(t, mixed_[Mixed(p - 1, d, c)]);
        if (d > 0) t = std::max(t, mixed_[Mixed(p, d - 1, c)]);
        if (c > 0) t = std::max(t, mixed_[Mixed(p, d, c - 1)]);
        if (p > 0 && d == 0 && c == 0) t = std::max(t, alone_[p]);
        mixed_[Mixed(p, d, c)] = t;
      }
    }
  }
}

void StepTimeTable::FillExtra() {
  const size_t np = p_.at.size(), nx = x_.at.size(), gx = grid_.prefill_ctx.size();
  const std::vector<double> inner = MonotoneExtra(grid_, grid_.alone_ns);
  extra_.assign(np * nx, 0.0);
  for (size_t p = 0; p < np; ++p) {
    for (size_t x = 0; x < nx; ++x) {
      const size_t ip = std::min(p, np - 2), ix = std::min(x, nx - 2);
      const double here = inner[ip * gx + ix];
      double t = here;
      if (p != ip && ip > 0) t += (here - inner[(ip - 1) * gx + ix]) * p_.inverse_width[ip - 1] * (kFar - p_.at[ip]);
      if (x != ix && ix > 0) t += (here - inner[ip * gx + ix - 1]) * x_.inverse_width[ix - 1] * (kFar - x_.at[ix]);
      if (p > 0) t = std::max(t, extra_[(p - 1) * nx + x]);
      if (x > 0) t = std::max(t, extra_[p * nx + x - 1]);
      extra_[p * nx + x] = t;
    }
  }
}

DecodeSegment StepTimeTable::DecodeSegmentAt(int64_t decode_seqs, int64_t kv) const {
  const double seqs = static_cast<double>(decode_seqs);
  const size_t d = d_.CellOf(seqs);
  const double wd = d_.WeightOf(seqs, d);
  size_t c = c_.CellOf(static_cast<double>(kv) / seqs);
  // The division rounds; the segment's own bounds decide.
  const auto bound = [&](size_t i) { return static_cast<int64_t>(c_.at[i]) * decode_seqs; };
  if (kv < bound(c) && c > 0) --c;
  if (kv >= bound(c + 1) && c + 2 < c_.at.size()) ++c;
  const double low = Lerp(mixed_[Mixed(0, d, c)], mixed_[Mixed(0, d + 1, c)], wd);
  const double high = Lerp(mixed_[Mixed(0, d, c + 1)], mixed_[Mixed(0, d + 1, c + 1)], wd);
  DecodeSegment segment;
  segment.kv_from = bound(c);
  if (c + 2 < c_.at.size()) segment.kv_until = bound(c + 1);  // else: no end
  segment.per_kv_token_ns = (high - low) * c_.inverse_width[c] / seqs;
  segment.base_ns = low - segment.per_kv_token_ns * static_cast<double>(segment.kv_from);
  return segment;
}

double StepTimeTable::AloneNanos(double prefill_tokens) const {
  const size_t p = p_.CellOf(prefill_tokens);
  return Lerp(alone_[p], alone_[p + 1], p_.WeightOf(prefill_tokens, p));
}

double StepTimeTable::ExtraNanos(const StepShape& shape) const {
  const double tokens = static_cast<double>(shape.prefill_tokens), ctx = static_cast<double>(shape.prefill_ctx);
  const size_t p = p_.CellOf(tokens), x = x_.CellOf(ctx), nx = x_.at.size();
  const double w = x_.WeightOf(ctx, x);
  const double* e = &extra_[p * nx + x];
  return Lerp(Lerp(e[0], e[1], w), Lerp(e[nx], e[nx + 1], w), p_.WeightOf(tokens, p));
}

double StepTimeTable::MixedNanos(const StepShape& shape) const {
  const double tokens = static_cast<double>(shape.prefill_tokens), seqs = static_cast<double>(shape.decode_seqs);
  const double ctx = static_cast<double>(shape.decode_kv_tokens) / seqs;
  const size_t p = p_.CellOf(tokens), d = d_.CellOf(seqs), c = c_.CellOf(ctx);
  const double wd = d_.WeightOf(seqs, d), wc = c_.WeightOf(ctx, c);
  const size_t row = c_.at.size(), plane = row * d_.at.size();
  const double* m = &mixed_[Mixed(p, d, c)];
  const auto at_prefill = [&](const double* q) { return Lerp(Lerp(q[0], q[1], wc), Lerp(q[row], q[row + 1], wc), wd); };
  return Lerp(at_prefill(m), at_prefill(m + plane), p_.WeightOf(tokens, p));
}

double StepTimeTable::NanosOf(const StepShape& shape) const {
  if (shape.prefill_tokens == 0) {
    if (shape.decode_seqs == 0) return 0;
    const DecodeSegment s = DecodeSegmentAt(shape.decode_seqs, shape.decode_kv_tokens);
    return s.base_ns + s.per_kv_token_ns * static_cast<double>(shape.decode_kv_tokens);
  }
  double ns = shape.decode_seqs == 0 ? AloneNanos(static_cast<double>(shape.prefill_tokens)) : MixedNanos(shape);
  if (shape.prefill_ctx > 0) ns += ExtraNanos(shape);
  return ns;
}

bool StepTimeTable::Outside(const StepShape& s) const {
  const StepTableGrid& g = grid_;
  if (s.prefill_tokens > g.prefill_tokens.back()) return true;
  if (s.prefill_tokens > 0) {
    if (s.prefill_ctx > g.prefill_ctx.back()) return true;
    if (s.decode_seqs == 0) return s.prefill_tokens < g.prefill_tokens[1];  // an empty step is not measured
  }
  if (s.decode_seqs == 0) return false;
  return s.decode_seqs < g.decode_seqs.front() || s.decode_seqs > g.decode_seqs.back() ||
         s.decode_kv_tokens < g.decode_ctx.front() * s.decode_seqs || s.decode_kv_tokens > g.decode_ctx.back() * s.decode_seqs;
}

StepTimeTable::Value StepTimeTable::Evaluate(const StepShape& shape) const {
  return {NanosOf(shape), (shape.prefill_tokens > 0 || shape.decode_seqs > 0) && Outside(shape)};
}

std::optional<std::string_view> StepTimeTable::Note(std::string_view key) const {
  for (const auto& [k, v] : grid_.notes) {
    if (k == key) return v;
  }
  return std::nullopt;
}

}  // namespace foretoken
