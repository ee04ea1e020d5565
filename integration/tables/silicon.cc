#include "integration/tables/silicon.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cmath>
#include <map>
#include <set>
#include <string>

#include "integration/tables/csv.h"
#include "runtime/base/check.h"

namespace foretoken::tables {
namespace {

using Key = std::array<int64_t, 4>;  // prefill_tokens, prefill_ctx, decode_seqs, decode_ctx

Result<std::map<Key, double>> ReadRows(const Csv& csv) {
  std::array<size_t, 5> columns{};
  const char* names[] = {"prefill_tokens", "prefill_ctx", "decode_count", "decode_ctx", "step_ms"};
  for (size_t k = 0; k < 5; ++k) {
    const Result<size_t> column = csv.Column(names[k]);
    if (!column.ok()) return column.error();
    columns[k] = *column;
  }
  std::map<Key, double> rows;
  for (size_t r = 0; r < csv.rows(); ++r) {
    Key key{};
    for (size_t k = 0; k < 4; ++k) {
      const Result<int64_t> value = csv.Whole(r, columns[k]);
      if (!value.ok()) return value.error();
      key[k] = *value;
    }
    const Result<double> ms = csv.Number(r, columns[4]);
    if (!ms.ok()) return ms.error();
    if (*ms <= 0) return csv.At(r, columns[4], "must be > 0");
    if (!rows.emplace(key, *ms * 1e6).second) return csv.At(r, columns[0], "this step has a row already");
  }
  return rows;
}

// What the index says about this file.
void AddIndexNotes(std::string_view index_json, std::string_view file_name, StepTableGrid& grid) {
  boost::json::error_code ec;
  const boost::json::value index = boost::json::parse(index_json, ec);
  if (ec || !index.is_object()) return;
  const boost::json::value* tables = index.as_object().if_contains("tables");
  if (tables == nullptr || !tables->is_array()) return;
  const std::string_view base = file_name.substr(file_name.find_last_of('/') + 1);
  for (const boost::json::value& entry : tables->as_array()) {
    const auto* o = entry.if_object();
    if (o == nullptr || !o->if_contains("file") || o->at("file") != boost::json::string(base)) continue;
    const auto note = [&](const char* from, const char* to) {
      const boost::json::value* v = o->if_contains(from);
      if (v == nullptr) return;
      grid.notes.emplace_back(to, v->is_string() ? std::string(v->as_string()) : boost::json::serialize(*v));
    };
    note("gpu", "gpu");
    note("model", "model");
    note("tp", "tensor_parallel");
    note("dtype", "dtype");
    note("backend", "measured_with");
    note("kv_bytes_per_token", "kv_bytes_per_token");
    note("weight_bytes", "weight_bytes");
    note("kv_capacity_tokens_at_0.9", "kv_capacity_tokens");
  }
}

}  // namespace

Result<SiliconImport> ImportSilicon(std::string_view text, std::string_view file_name, std::string_view index_json) {
  const Result<Csv> csv = Csv::Parse(text, file_name);
  if (!csv.ok()) return csv.error();
  const Result<std::map<Key, double>> rows = ReadRows(*csv);
  if (!rows.ok()) return rows.error();
  SiliconImport out;
  StepTableGrid& grid = out.grid;
  grid.notes = {
      {"source",
       "Python package aisimulate 0.13.0.dev202610270000000085 (per-kernel measurements on real GPUs, joined per step)"},
      {"license", "Apache-2.0"},
      {"copyright", "(c) 2025-2026 NVIDIA CORPORATION & AFFILIATES; derived figures, modified"}};
  AddIndexNotes(index_json, file_name, grid);
  grid.notes.emplace_back("not_contained", "host and launch overhead, scheduler, sampling, CUDA-graph padding");
  std::array<std::set<int64_t>, 4> axes;
  axes[0].insert(0);
  for (const auto& [key, ns] : *rows) {
    axes[0].insert(key[0]);
    axes[1].insert(key[1]);
    if (key[2] > 0) axes[2].insert(key[2]);
    if (key[3] > 0) axes[3].insert(key[3]);
  }
  std::vector<int64_t>* targets[] = {&grid.prefill_tokens, &grid.prefill_ctx, &grid.decode_seqs, &grid.decode_ctx};
  for (size_t k = 0; k < 4; ++k) targets[k]->assign(axes[k].begin(), axes[k].end());
  std::string missing;
  const auto take = [&](Key key) {
    const auto it = rows->find(key);
    if (it != rows->end()) return it->second;
    if (missing.empty()) {
      for (int64_t v : key) missing += (missing.empty() ? "" : "/") + std::to_string(v);
    }
    return 0.0;
  };
  for (int64_t p : grid.prefill_tokens) {
    for (int64_t d : grid.decode_seqs) {
      for (int64_t c : grid.decode_ctx) grid.mixed_ns.push_back(take({p, 0, d, c}));
    }
    for (int64_t x : grid.prefill_ctx) grid.alone_ns.push_back(p == 0 ? 0.0 : take({p, x, 0, 0}));
  }
  if (!missing.empty()) {
    return Error{std::string(file_name) + ":1:1: no row for prefill_tokens/prefill_ctx/decode_count/decode_ctx " + missing +
                 ": the grid must be complete"};
  }
  const StepTableGrid raw = grid;
  out.changed = MakeMonotone(grid);
  for (size_t i = 0; i < raw.mixed_ns.size(); ++i) {
    out.largest_move = std::max(out.largest_move, std::abs(grid.mixed_ns[i] / raw.mixed_ns[i] - 1));
  }
  const Result<StepTimeTable> table = StepTimeTable::Make(grid);
  if (!table.ok()) return Error{std::string(file_name) + ":1:1: " + table.error().message};
  for (const auto& [key, ns] : *rows) {
    if (key[1] == 0 || key[2] == 0) continue;
    const double error = std::abs(table->NanosOf({key[0], key[1], key[2], key[2] * key[3]}) / ns - 1);
    ++out.left_out;
    out.left_out_mean_error += error;
    out.left_out_max_error = std::max(out.left_out_max_error, error);
  }
  if (out.left_out > 0) out.left_out_mean_error /= static_cast<double>(out.left_out);
  return out;
}

TableError CompareToGrid(const StepTimeTable& table, const StepTableGrid& reference, int64_t kv_capacity_tokens) {
  std::vector<double> errors;
  const auto add = [&](const StepShape& shape, double ns) {
    if (kv_capacity_tokens > 0 && shape.prefill_tokens + shape.prefill_ctx + shape.decode_kv_tokens > kv_capacity_tokens)
      return;
    errors.push_back(std::abs(table.NanosOf(shape) / ns - 1));
  };
  const StepTableGrid& g = reference;
  for (size_t p = 0; p < g.prefill_tokens.size(); ++p) {
    for (size_t d = 0; d < g.decode_seqs.size(); ++d) {
      for (size_t c = 0; c < g.decode_ctx.size(); ++c) {
        add({g.prefill_tokens[p], 0, g.decode_seqs[d], g.decode_seqs[d] * g.decode_ctx[c]}, g.mixed_ns[g.MixedIndex(p, d, c)]);
      }
    }
    for (size_t x = 0; p > 0 && x < g.prefill_ctx.size(); ++x) {
      add({g.prefill_tokens[p], g.prefill_ctx[x], 0, 0}, g.alone_ns[g.AloneIndex(p, x)]);
    }
  }
  TableError e;
  if (errors.empty()) return e;
  std::sort(errors.begin(), errors.end());
  for (double x : errors) e.mean += x / static_cast<double>(errors.size());
  e.p99 = errors[static_cast<size_t>(0.99 * static_cast<double>(errors.size() - 1))];
  e.max = errors.back();
  return e;
}

namespace {

// The grid without point `index` of one axis (0 prefill_tokens, 1 prefill_ctx, 2 decode_seqs, 3 decode_ctx).
StepTableGrid Without(const StepTableGrid& g, size_t axis, size_t index) {
  StepTableGrid out = g;
  std::vector<int64_t>* axes[] = {&out.prefill_tokens, &out.prefill_ctx, &out.decode_seqs, &out.decode_ctx};
  axes[axis]->erase(axes[axis]->begin() + static_cast<std::ptrdiff_t>(index));
  out.mixed_ns.clear();
  out.alone_ns.clear();
  for (size_t p = 0; p < g.prefill_tokens.size(); ++p) {
    if (axis == 0 && p == index) continue;
    for (size_t d = 0; d < g.decode_seqs.size(); ++d) {
      for (size_t c = 0; c < g.decode_ctx.size(); ++c) {
        if ((axis == 2 && d == index) || (axis == 3 && c == index)) continue;
        out.mixed_ns.push_back(g.mixed_ns[g.MixedIndex(p, d, c)]);
      }
    }
    for (size_t x = 0; x < g.prefill_ctx.size(); ++x) {
      if (axis == 1 && x == index) continue;
      out.alone_ns.push_back(g.alone_ns[g.AloneIndex(p, x)]);
    }
  }
  return out;
}

}  // namespace

StepTableGrid Thin(const StepTableGrid& full, double mean_error, double max_error, int64_t kv_capacity_tokens) {
  StepTableGrid now = full;
  while (true) {
    StepTableGrid best;
    double best_mean = mean_error;
    bool found = false;
    const std::vector<int64_t>* axes[] = {&now.prefill_tokens, &now.prefill_ctx, &now.decode_seqs, &now.decode_ctx};
    for (size_t axis = 0; axis < 4; ++axis) {
      for (size_t i = 1; i + 1 < axes[axis]->size(); ++i) {
        StepTableGrid candidate = Without(now, axis, i);
        Result<StepTimeTable> table = StepTimeTable::Make(candidate);
        FT_CHECK(table.ok());  // a part of a monotone grid is monotone
        const TableError e = CompareToGrid(*table, full, kv_capacity_tokens);
        if (e.mean > best_mean || e.max > max_error) continue;
        best_mean = e.mean;
        best = std::move(candidate);
        found = true;
      }
    }
    if (!found) return now;
    now = std::move(best);
  }
}

}  // namespace foretoken::tables
