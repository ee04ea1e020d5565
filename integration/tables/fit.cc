#include "integration/tables/fit.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cmath>
#include <optional>
#include <tuple>

#include "integration/tables/csv.h"
#include "runtime/base/prng.h"

namespace foretoken::tables {
namespace {

constexpr double kRoughness = 0.2;        // weight of a second difference, relative, against one record
constexpr double kTowardsAffine = 0.001;  // weight of a cell's distance from the affine law
constexpr double kOutlier = 0.10;         // relative distance from like steps
constexpr int kRobustRounds = 4;
constexpr double kRobustScale = 0.02;  // relative error from which a record counts less

// Solves the symmetric positive definite a x = b (row major) by Cholesky.
Result<std::vector<double>> Solve(std::vector<double> a, std::vector<double> b) {
  const size_t n = b.size();
  for (size_t j = 0; j < n; ++j) {
    for (size_t i = j; i < n; ++i) {
      double s = a[i * n + j];
      for (size_t k = 0; k < j; ++k) s -= a[i * n + k] * a[j * n + k];
      if (i == j) {
        if (!(s > 0)) return Error{"the records do not determine a law: they are too few or too much alike"};
        a[j * n + j] = std::sqrt(s);
      } else {
        a[i * n + j] = s / a[j * n + j];
      }
    }
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < i; ++k) b[i] -= a[i * n + k] * b[k];
    b[i] /= a[i * n + i];
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; ++k) b[i] -= a[k * n + i] * b[k];
    b[i] /= a[i * n + i];
  }
  return b;
}

Result<std::vector<StepRecord>> FromCsv(std::string_view text, std::string_view file) {
  const Result<Csv> csv = Csv::Parse(text, file);
  if (!csv.ok()) return csv.error();
  const bool blis = csv->Has("batch.prefill_tokens");
  const auto column = [&](const char* ours, const char* theirs) { return csv->Column(blis ? theirs : ours); };
  const Result<size_t> prefill = column("prefill_tokens", "batch.prefill_tokens"),
                       seqs = column("decode_seqs", "batch.num_decode_reqs"), kv = column("decode_kv_tokens", "kv_tok"),
                       time = column("duration_us", "dt_us");
  for (const Result<size_t>* c : {&prefill, &seqs, &kv, &time}) {
    if (!c->ok()) return c->error();
  }
  const Result<size_t> ctx = csv->Has("prefill_ctx") ? csv->Column("prefill_ctx") : Result<size_t>(Error{});
  std::vector<StepRecord> out;
  for (size_t r = 0; r < csv->rows(); ++r) {
    if (csv->Cell(r, *time).empty()) continue;
    const Result<double> us = csv->Number(r, *time);
    if (!us.ok()) return us.error();
    if (*us <= 0) return csv->At(r, *time, "must be > 0");
    StepRecord record;
    record.ns = *us * 1e3;
    for (const auto& [from, to] : {std::pair{*prefill, &record.shape.prefill_tokens},
                                   {*seqs, &record.shape.decode_seqs},
                                   {*kv, &record.shape.decode_kv_tokens}}) {
      const Result<int64_t> value = csv->Whole(r, from);
      if (!value.ok()) return value.error();
      *to = *value;
    }
    if (ctx.ok()) {
      const Result<int64_t> value = csv->Whole(r, *ctx);
      if (!value.ok()) return value.error();
      record.shape.prefill_ctx = *value;
    }
    if (blis)
      record.shape.decode_kv_tokens =
          std::max(record.shape.decode_seqs, record.shape.decode_kv_tokens - record.shape.prefill_tokens);
    if (record.shape.decode_seqs == 0) record.shape.decode_kv_tokens = 0;
    if (record.shape.prefill_tokens + record.shape.decode_seqs > 0) out.push_back(record);
  }
  return out;
}

// One step of a batch trace. nullopt: another kind of line. The recorder's items are [id, tokens, computed, samples] beside a
// "dur" in nanoseconds, the specification's {"n", "computed", "prefill"} beside "start" and "end" in seconds.
Result<std::optional<StepRecord>> FromLine(const boost::json::object& o) {
  const auto* items = o.if_contains("items");
  if (items == nullptr || !items->is_array()) return std::optional<StepRecord>();
  StepRecord record;
  const auto *duration = o.if_contains("dur"), *start = o.if_contains("start"), *end = o.if_contains("end");
  if (duration != nullptr && duration->is_number()) {
    record.ns = duration->to_number<double>();
  } else if (start != nullptr && end != nullptr && start->is_number() && end->is_number()) {
    record.ns = (end->to_number<double>() - start->to_number<double>()) * 1e9;
  }
  int64_t weighted = 0;
  for (const boost::json::value& item : items->as_array()) {
    const boost::json::value *tokens = nullptr, *computed = nullptr, *prefill = nullptr;
    if (const auto* list = item.if_array(); list != nullptr && list->size() >= 3) {
      tokens = &(*list)[1];
      computed = &(*list)[2];
    } else if (const auto* named = item.if_object()) {
      tokens = named->if_contains("n");
      computed = named->if_contains("computed");
      prefill = named->if_contains("prefill");
    }
    if (tokens == nullptr || computed == nullptr || !tokens->is_int64() || !computed->is_int64()) {
      return Error{"items: [id, tokens, computed, ...] expected"};
    }
    const int64_t n = tokens->as_int64(), before = computed->as_int64();
    // A chunk of one token looks like a decode where the line does not say what it is.
    if (prefill != nullptr && prefill->is_bool() ? prefill->as_bool() : n > 1) {
      record.shape.prefill_tokens += n;
      weighted += n * before;
    } else {
      ++record.shape.decode_seqs;
      record.shape.decode_kv_tokens += n + before;
    }
  }
  if (record.shape.prefill_tokens > 0) record.shape.prefill_ctx = weighted / record.shape.prefill_tokens;
  if (record.ns <= 0 || record.shape.prefill_tokens + record.shape.decode_seqs == 0) return std::optional<StepRecord>();
  return std::optional<StepRecord>(record);
}

Result<std::vector<StepRecord>> FromJsonLines(std::string_view text, std::string_view file) {
  std::vector<StepRecord> out;
  size_t number = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t end = std::min(text.find('\n', pos), text.size());
    const std::string_view line = text.substr(pos, end - pos);
    pos = end + 1;
    ++number;
    if (line.empty()) continue;
    const std::string where = std::string(file) + ":" + std::to_string(number) + ":1: ";
    boost::json::error_code ec;
    const boost::json::value v = boost::json::parse(boost::json::string_view(line.data(), line.size()), ec);
    if (ec || !v.is_object()) return Error{where + "not a JSON object"};
    const Result<std::optional<StepRecord>> record = FromLine(v.as_object());
    if (!record.ok()) return Error{where + record.error().message};
    if (record->has_value()) out.push_back(**record);
  }
  return out;
}

// A handful of ascending points of an axis: equal shares of the records, ends included.
std::vector<int64_t> PointsOf(std::vector<int64_t> values, size_t count) {
  std::sort(values.begin(), values.end());
  std::vector<int64_t> points;
  for (size_t i = 0; i < count; ++i) points.push_back(values[i * (values.size() - 1) / (count - 1)]);
  points.erase(std::unique(points.begin(), points.end()), points.end());
  return points;
}

struct Weight {
  size_t index;
  double w;
};

std::pair<size_t, double> CellOf(const std::vector<int64_t>& axis, double x) {
  if (axis.size() == 1) return {0, 0.0};
  size_t i = 0;
  while (i + 2 < axis.size() && x >= static_cast<double>(axis[i + 1])) ++i;
  const double low = static_cast<double>(axis[i]);
  return {i, std::clamp((x - low) / (static_cast<double>(axis[i + 1]) - low), 0.0, 1.0)};
}

// The multilinear weights of a record on the grid's values.
std::vector<Weight> WeightsOf(const StepTableGrid& g, const StepShape& s) {
  const double seqs = static_cast<double>(std::max<int64_t>(1, s.decode_seqs));
  const auto [p, wp] = CellOf(g.prefill_tokens, static_cast<double>(s.prefill_tokens));
  const auto [d, wd] = CellOf(g.decode_seqs, seqs);
  const auto [c, wc] = CellOf(g.decode_ctx, static_cast<double>(s.decode_kv_tokens) / seqs);
  std::vector<Weight> out;
  for (size_t corner = 0; corner < 8; ++corner) {
    const size_t a = corner & 1, b = corner >> 1 & 1, e = corner >> 2;
    const double w = (a ? wp : 1 - wp) * (b ? wd : 1 - wd) * (e ? wc : 1 - wc);
    if (w > 0) out.push_back({g.MixedIndex(p + a, d + b, c + e), w});
  }
  return out;
}

// Adds the penalty on second differences (slopes that change), and on slopes a little, of one axis.
void Penalise(const StepTableGrid& g, double scale, std::vector<double>& a, size_t n) {
  const std::vector<int64_t>* axes[] = {&g.prefill_tokens, &g.decode_seqs, &g.decode_ctx};
  const auto add = [&](std::initializer_list<Weight> row, double weight) {
    for (const Weight& x : row) {
      for (const Weight& y : row) a[x.index * n + y.index] += weight * x.w * y.w;
    }
  };
  const auto at = [&](std::array<size_t, 3> i) { return g.MixedIndex(i[0], i[1], i[2]); };
  for (size_t axis = 0; axis < 3; ++axis) {
    for (size_t p = 0; p < axes[0]->size(); ++p) {
      for (size_t d = 0; d < axes[1]->size(); ++d) {
        for (size_t c = 0; c < axes[2]->size(); ++c) {
          std::array<size_t, 3> i = {p, d, c}, j = i, k = i;
          j[axis] += 1;
          k[axis] += 2;
          if (j[axis] < axes[axis]->size()) add({{at(i), -1}, {at(j), 1}}, 1e-6 * scale);
          if (k[axis] >= axes[axis]->size()) continue;
          const double x0 = static_cast<double>((*axes[axis])[i[axis]]), x1 = static_cast<double>((*axes[axis])[j[axis]]),
                       x2 = static_cast<double>((*axes[axis])[k[axis]]);
          const double w = (x1 - x0) / (x2 - x0);
          add({{at(i), -(1 - w)}, {at(j), 1}, {at(k), -w}}, kRoughness * scale);
        }
      }
    }
  }
}

}  // namespace

Result<std::vector<StepRecord>> ReadStepRecords(std::string_view text, std::string_view file_name) {
  Result<std::vector<StepRecord>> out = text.starts_with("{") ? FromJsonLines(text, file_name) : FromCsv(text, file_name);
  if (out.ok() && out->empty()) return Error{std::string(file_name) + ":1:1: no step with a time"};
  return out;
}

size_t DropOutliers(std::vector<StepRecord>& records) {
  constexpr size_t kNear = 7;  // on either side
  // In the order of their shapes, like stand beside like.
  std::sort(records.begin(), records.end(), [](const StepRecord& a, const StepRecord& b) {
    const auto key = [](const StepRecord& r) {
      return std::tuple(r.shape.prefill_tokens == 0 ? 0 : 1 + r.shape.prefill_tokens / 64, r.shape.decode_seqs / 4,
                        r.shape.decode_kv_tokens, r.ns);
    };
    return key(a) < key(b);
  });
  std::vector<StepRecord> kept;
  for (size_t i = 0; i < records.size(); ++i) {
    const size_t from = i > kNear ? i - kNear : 0, to = std::min(records.size(), i + kNear + 1);
    std::vector<double> near;
    for (size_t k = from; k < to; ++k) near.push_back(records[k].ns);
    std::nth_element(near.begin(), near.begin() + static_cast<std::ptrdiff_t>(near.size() / 2), near.end());
    const double median = near[near.size() / 2];
    if (std::abs(records[i].ns / median - 1) <= kOutlier) kept.push_back(records[i]);
  }
  const size_t dropped = records.size() - kept.size();
  records = std::move(kept);
  return dropped;
}

Result<AffineStepTime::Coefficients> FitAffine(const std::vector<StepRecord>& records) {
  std::vector<double> a(16, 0.0), b(4, 0.0), scale(4, 1e-9);
  const auto row = [](const StepShape& s) {
    return std::array<double, 4>{1.0, static_cast<double>(s.prefill_tokens), static_cast<double>(s.decode_seqs),
                                 static_cast<double>(s.decode_kv_tokens + s.prefill_tokens + s.prefill_ctx)};
  };
  for (const StepRecord& r : records) {
    const auto x = row(r.shape);
    for (size_t i = 0; i < 4; ++i) scale[i] = std::max(scale[i], x[i]);
  }
  for (const StepRecord& r : records) {
    const auto x = row(r.shape);
    for (size_t i = 0; i < 4; ++i) {
      b[i] += x[i] / scale[i] / r.ns;
      for (size_t j = 0; j < 4; ++j) a[i * 4 + j] += x[i] / scale[i] * x[j] / scale[j] / (r.ns * r.ns);
    }
  }
  for (size_t i = 0; i < 4; ++i) a[i * 5] += 1e-9 * a[0];  // a column that never varies gets 0
  const Result<std::vector<double>> x = Solve(std::move(a), std::move(b));
  if (!x.ok()) return x.error();
  return AffineStepTime::Coefficients{(*x)[0], (*x)[1] / scale[1], (*x)[2] / scale[2], (*x)[3] / scale[3]};
}

Result<StepTableGrid> FitTable(const std::vector<StepRecord>& records) {
  std::vector<int64_t> prefill, seqs, ctx;
  double mean = 0;
  for (const StepRecord& r : records) {
    if (r.shape.prefill_tokens > 0) prefill.push_back(r.shape.prefill_tokens);
    if (r.shape.decode_seqs > 0) {
      seqs.push_back(r.shape.decode_seqs);
      ctx.push_back(std::max<int64_t>(1, r.shape.decode_kv_tokens / r.shape.decode_seqs));
    }
    mean += r.ns / static_cast<double>(records.size());
  }
  if (seqs.size() < 50) return Error{std::to_string(seqs.size()) + " records of steps with decodes: at least 50 are needed"};
  StepTableGrid g;
  g.prefill_tokens = {0};
  if (prefill.size() >= 2) {
    const int64_t most = *std::max_element(prefill.begin(), prefill.end());
    for (int shift = 5; shift >= 0; --shift) {
      if (most >> shift > g.prefill_tokens.back()) g.prefill_tokens.push_back(most >> shift);
    }
  }
  g.prefill_ctx = {0};
  g.decode_seqs = PointsOf(seqs, 14);
  g.decode_ctx = PointsOf(ctx, 4);
  const size_t n = g.prefill_tokens.size() * g.decode_seqs.size() * g.decode_ctx.size();
  // In units of the mean time; what is fitted is the distance from the affine law, so that cells without records follow it.
  const auto affine = FitAffine(records);
  if (!affine.ok()) return affine.error();
  const AffineStepTime base(*affine);
  std::vector<double> start, values;
  for (int64_t p : g.prefill_tokens) {
    for (int64_t d : g.decode_seqs) {
      for (int64_t c : g.decode_ctx) start.push_back(base.NanosOf({p, 0, d, d * c}) / mean);
    }
  }
  values = start;
  std::vector<std::vector<Weight>> rows;
  for (const StepRecord& r : records) rows.push_back(WeightsOf(g, r.shape));
  for (int round = 0; round < kRobustRounds; ++round) {
    std::vector<double> a(n * n, 0.0), b(n, 0.0);
    Penalise(g, 1.0, a, n);
    for (size_t i = 0; i < n; ++i) a[i * n + i] += kTowardsAffine;
    for (size_t r = 0; r < records.size(); ++r) {
      const double y = records[r].ns / mean;
      double at = 0, origin = 0;
      for (const Weight& w : rows[r]) {
        at += w.w * values[w.index];
        origin += w.w * start[w.index];
      }
      // Least absolute errors by reweighting: one step in a hundred takes half as long again for reasons of its own.
      const double robust = round == 0 ? 1.0 : std::min(1.0, kRobustScale / std::max(1e-4, std::abs(at / y - 1)));
      for (const Weight& u : rows[r]) {
        b[u.index] += robust * u.w * (y - origin) / (y * y);
        for (const Weight& w : rows[r]) a[u.index * n + w.index] += robust * u.w * w.w / (y * y);
      }
    }
    Result<std::vector<double>> x = Solve(std::move(a), std::move(b));
    if (!x.ok()) return x.error();
    for (size_t i = 0; i < n; ++i) values[i] = start[i] + (*x)[i];
  }
  for (double v : values) g.mixed_ns.push_back(std::max(v, 0.01) * mean);
  // Prompts without decodes beside them: the smallest batch stands in.
  for (size_t p = 0; p < g.prefill_tokens.size(); ++p) g.alone_ns.push_back(p == 0 ? 0.0 : g.mixed_ns[g.MixedIndex(p, 0, 0)]);
  MakeMonotone(g);
  return g;
}

double MeanError(const StepTimeLaw& law, const std::vector<StepRecord>& records) {
  double sum = 0;
  for (const StepRecord& r : records) sum += std::abs(law.NanosOf(r.shape) / r.ns - 1);
  return records.empty() ? 0 : sum / static_cast<double>(records.size());
}

Result<std::vector<double>> CrossValidate(const std::vector<StepRecord>& records, FitKind kind, size_t folds, uint64_t seed) {
  std::vector<StepRecord> shuffled = records;
  Prng prng(seed);
  prng.Shuffle(shuffled);
  std::vector<double> errors;
  for (size_t fold = 0; fold < folds; ++fold) {
    std::vector<StepRecord> train, test;
    for (size_t i = 0; i < shuffled.size(); ++i) (i % folds == fold ? test : train).push_back(shuffled[i]);
    if (kind == FitKind::kAffine) {
      const auto c = FitAffine(train);
      if (!c.ok()) return c.error();
      errors.push_back(MeanError(AffineStepTime(*c), test));
      continue;
    }
    Result<StepTableGrid> grid = FitTable(train);
    if (!grid.ok()) return grid.error();
    const Result<StepTimeTable> table = StepTimeTable::Make(std::move(*grid));
    if (!table.ok()) return table.error();
    errors.push_back(MeanError(*table, test));
  }
  return errors;
}

}  // namespace foretoken::tables
