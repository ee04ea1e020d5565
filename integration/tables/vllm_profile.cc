#include "integration/tables/vllm_profile.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <map>
#include <optional>
#include <set>

#include "integration/tables/csv.h"

namespace foretoken::tables {
namespace {

using Series = std::map<int64_t, double>;  // point -> nanoseconds
using Key = std::array<int64_t, 4>;        // prefill_chunk, kv_prefill, n_decode, kv_decode

constexpr double kNsPerUs = 1e3;

// Rows (layer, point, time_us) by layer.
Result<std::map<std::string, Series>> ReadLayers(const std::string& path, const char* point_name) {
  const Result<std::string> text = ReadTextFile(path);
  if (!text.ok()) return text.error();
  const Result<Csv> csv = Csv::Parse(*text, path);
  if (!csv.ok()) return csv.error();
  const Result<size_t> layer = csv->Column("layer"), point = csv->Column(point_name), time = csv->Column("time_us");
  for (const Result<size_t>* c : {&layer, &point, &time}) {
    if (!c->ok()) return c->error();
  }
  std::map<std::string, Series> out;
  for (size_t r = 0; r < csv->rows(); ++r) {
    const Result<int64_t> at = csv->Whole(r, *point);
    const Result<double> us = csv->Number(r, *time);
    if (!at.ok()) return at.error();
    if (!us.ok()) return us.error();
    if (*us <= 0) return csv->At(r, *time, "must be > 0");
    out[std::string(csv->Cell(r, *layer))][*at] = *us * kNsPerUs;
  }
  if (out.empty()) return Error{path + ":1:1: no rows"};
  return out;
}

// Adds `count` times each layer to one series over the points that the first has. Error: a layer without such a point.
Result<Series> Sum(const std::map<std::string, Series>& layers, const std::map<std::string, int64_t>& count,
                   const std::string& path) {
  Series total;
  for (const auto& [ns_at, unused] : layers.begin()->second) total[ns_at] = 0;
  for (const auto& [name, series] : layers) {
    for (auto& [at, ns] : total) {
      const auto it = series.find(at);
      if (it == series.end()) return Error{path + ":1:1: layer " + name + " has no row at " + std::to_string(at)};
      ns += it->second * static_cast<double>(count.at(name));
    }
  }
  return total;
}

// Per-token layers outside the blocks run once a step, the norm twice in each block (before attention and before the MLP),
// everything else once in each block.
std::map<std::string, int64_t> DenseCounts(const std::map<std::string, Series>& dense, int64_t layers,
                                           std::vector<std::string>& notes) {
  static const std::set<std::string> known = {"qkv_proj", "rotary_emb", "o_proj", "gate_up_proj",
                                              "act_fn",   "down_proj",  "qk_norm"};
  std::map<std::string, int64_t> count;
  for (const auto& [name, series] : dense) {
    if (name == "embedding" || name == "final_layernorm") {
      count[name] = 1;
    } else if (name == "layernorm") {
      count[name] = 2 * layers;
    } else {
      count[name] = layers;
      if (!known.contains(name)) notes.push_back("layer " + name + ": taken to run once in each block");
    }
  }
  return count;
}

void Unpack(const Series& series, std::vector<int64_t>& points, std::vector<double>& ns) {
  for (const auto& [at, t] : series) {
    points.push_back(at);
    ns.push_back(t);
  }
}

// The attention rows may hold a second, denser grid over part of the range; the axes are the points that are there together
// with the smallest ones, so that the grid is rectangular.
Status FillAttention(const std::map<Key, double>& rows, int64_t layer_count, const std::string& path, VllmProfile& out) {
  LayerProfile& p = out.layers;
  std::array<std::set<int64_t>, 4> all;
  for (const auto& [key, ns] : rows) {
    for (size_t k = 0; k < 4; ++k) all[k].insert(key[k]);
  }
  const auto smallest = [&](size_t axis) {
    const auto it = all[axis].upper_bound(0);
    return it == all[axis].end() ? int64_t{0} : *it;
  };
  const Key first = {smallest(0), smallest(1), smallest(2), smallest(3)};
  const auto has = [&](const Key& key) { return rows.contains(key); };
  p.chunk = {0};
  p.decode_seqs = {0};
  for (int64_t v : all[0])
    if (v > 0 && has({v, first[1], first[2], first[3]})) p.chunk.push_back(v);
  for (int64_t v : all[1])
    if (has({first[0], v, first[2], first[3]})) p.kv_prefill.push_back(v);
  for (int64_t v : all[2])
    if (v > 0 && has({0, 0, v, first[3]})) p.decode_seqs.push_back(v);
  for (int64_t v : all[3])
    if (v > 0 && has({first[0], first[1], first[2], v})) p.kv_decode.push_back(v);
  if (p.chunk.size() < 2 || p.kv_prefill.empty() || p.decode_seqs.size() < 2 || p.kv_decode.empty()) {
    return Error{path + ":1:1: no rectangular grid of prefill_chunk, kv_prefill, n_decode and kv_decode with joint rows"};
  }
  std::string missing;
  int64_t continued = 0;
  const auto value = [&](int64_t c, int64_t k, size_t n, int64_t d) {
    const Key key = c == 0 ? Key{0, 0, p.decode_seqs[n], n == 0 ? 0 : d} : Key{c, k, p.decode_seqs[n], n == 0 ? 0 : d};
    if (c == 0 && n == 0) return 0.0;
    if (const auto it = rows.find(key); it != rows.end()) return it->second;
    // Joint rows may end at fewer decodes than decode-only rows: continued along the last two.
    if (c > 0 && n >= 3) {
      const auto a = rows.find({c, k, p.decode_seqs[n - 2], d}), b = rows.find({c, k, p.decode_seqs[n - 1], d});
      if (a != rows.end() && b != rows.end()) {
        ++continued;
        return b->second + (b->second - a->second) * static_cast<double>(p.decode_seqs[n] - p.decode_seqs[n - 1]) /
                               static_cast<double>(p.decode_seqs[n - 1] - p.decode_seqs[n - 2]);
      }
    }
    if (missing.empty()) {
      for (int64_t v : key) missing += (missing.empty() ? "" : "/") + std::to_string(v);
    }
    return 0.0;
  };
  for (int64_t c : p.chunk) {
    for (int64_t k : p.kv_prefill) {
      for (size_t n = 0; n < p.decode_seqs.size(); ++n) {
        for (int64_t d : p.kv_decode) p.attention_ns.push_back(value(c, k, n, d) * static_cast<double>(layer_count));
      }
    }
  }
  if (!missing.empty()) {
    return Error{path + ":1:1: no row for prefill_chunk/kv_prefill/n_decode/kv_decode " + missing +
                 ": the grid must be complete"};
  }
  if (continued > 0) {
    out.assumptions.push_back("joint attention beside " + std::to_string(p.decode_seqs.back()) +
                              " decodes is not measured: continued from the rows with fewer");
  }
  return {};
}

Result<std::map<Key, double>> ReadAttention(const std::string& path) {
  const Result<std::string> text = ReadTextFile(path);
  if (!text.ok()) return text.error();
  const Result<Csv> csv = Csv::Parse(*text, path);
  if (!csv.ok()) return csv.error();
  std::array<size_t, 5> columns{};
  const char* names[] = {"prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"};
  for (size_t k = 0; k < 5; ++k) {
    const Result<size_t> column = csv->Column(names[k]);
    if (!column.ok()) return column.error();
    columns[k] = *column;
  }
  std::map<Key, double> rows;
  for (size_t r = 0; r < csv->rows(); ++r) {
    Key key{};
    for (size_t k = 0; k < 4; ++k) {
      const Result<int64_t> v = csv->Whole(r, columns[k]);
      if (!v.ok()) return v.error();
      key[k] = *v;
    }
    const Result<double> us = csv->Number(r, columns[4]);
    if (!us.ok()) return us.error();
    if (*us <= 0) return csv->At(r, columns[4], "must be > 0");
    rows[key] = *us * kNsPerUs;
  }
  return rows;
}

Status ReadMeta(const std::string& path, VllmProfile& out) {
  const Result<std::string> text = ReadTextFile(path);
  if (!text.ok()) return text.error();
  try {
    const YAML::Node meta = YAML::Load(*text);
    if (!meta.IsMap() || !meta["model"] || !meta["model"].IsScalar()) return Error{path + ":1:1: key 'model' is missing"};
    out.model = meta["model"].as<std::string>();
    if (meta["gpu"] && meta["gpu"].IsScalar()) out.gpu = meta["gpu"].as<std::string>();
  } catch (const YAML::Exception& e) {
    return Error{path + ":" + std::to_string(e.mark.line + 1) + ":" + std::to_string(e.mark.column + 1) + ": " + e.msg};
  }
  return {};
}

Status ReadShape(const std::string& path, VllmProfile& out) {
  const Result<std::string> text = ReadTextFile(path);
  if (!text.ok())
    return Error{text.error().message + ": the model's shape (its config.json) is needed; name it with --model-shape"};
  boost::json::error_code ec;
  const boost::json::value shape = boost::json::parse(*text, ec);
  if (ec || !shape.is_object()) return Error{path + ":1:1: not a JSON object (" + ec.message() + ")"};
  const boost::json::value* layers = shape.as_object().if_contains("num_hidden_layers");
  if (layers == nullptr || !layers->is_int64() || layers->as_int64() < 1) {
    return Error{path + ":1:1: num_hidden_layers must be a whole number >= 1"};
  }
  out.layer_count = layers->as_int64();
  return {};
}

}  // namespace

Result<VllmProfile> ReadVllmProfile(const std::string& directory, const std::string& shape_file) {
  std::string dir = directory;
  while (dir.size() > 1 && dir.back() == '/') dir.pop_back();
  VllmProfile out;
  if (Status s = ReadMeta(dir + "/meta.yaml", out); !s.ok()) return s.error();
  const std::string shape =
      shape_file.empty() ? dir + "/../" + out.model.substr(out.model.find_last_of('/') + 1) + ".json" : shape_file;
  if (Status s = ReadShape(shape, out); !s.ok()) return s.error();

  const std::string dense_path = dir + "/dense.csv", sequence_path = dir + "/per_sequence.csv";
  const auto dense = ReadLayers(dense_path, "tokens");
  if (!dense.ok()) return dense.error();
  const Result<Series> token = Sum(*dense, DenseCounts(*dense, out.layer_count, out.assumptions), dense_path);
  if (!token.ok()) return token.error();
  const auto sequence = ReadLayers(sequence_path, "sequences");
  if (!sequence.ok()) return sequence.error();
  std::map<std::string, int64_t> once;
  for (const auto& [name, series] : *sequence) once[name] = 1;
  const Result<Series> per_sequence = Sum(*sequence, once, sequence_path);
  if (!per_sequence.ok()) return per_sequence.error();
  Unpack(*token, out.layers.tokens, out.layers.token_ns);
  Unpack(*per_sequence, out.layers.sequences, out.layers.sequence_ns);

  const std::string attention_path = dir + "/attention.csv";
  const Result<std::map<Key, double>> rows = ReadAttention(attention_path);
  if (!rows.ok()) return rows.error();
  if (Status s = FillAttention(*rows, out.layer_count, attention_path, out); !s.ok()) return s.error();
  return out;
}

Result<StepTableGrid> ProfileAsGrid(const VllmProfile& profile, int64_t& changed) {
  const Result<ProfileStepLaw> law = ProfileStepLaw::Make(profile.layers);
  if (!law.ok()) return law.error();
  StepTableGrid grid;
  grid.notes = {{"source", "vllm-profile (LLMServingSim), per-layer measurements summed to whole steps"},
                {"license", "MIT"},
                {"gpu", profile.gpu},
                {"model", profile.model},
                {"not_contained", "host time between steps"}};
  grid.prefill_tokens = profile.layers.chunk;
  // The staircase of the token-wise layers is steep: points between the attention's own.
  for (int64_t p = 128; p < profile.layers.tokens.back(); p += 128) grid.prefill_tokens.push_back(p);
  std::sort(grid.prefill_tokens.begin(), grid.prefill_tokens.end());
  grid.prefill_tokens.erase(std::unique(grid.prefill_tokens.begin(), grid.prefill_tokens.end()), grid.prefill_tokens.end());
  grid.prefill_ctx = profile.layers.kv_prefill;
  if (grid.prefill_ctx.front() != 0) grid.prefill_ctx.insert(grid.prefill_ctx.begin(), 0);
  grid.decode_seqs.assign(profile.layers.decode_seqs.begin() + 1, profile.layers.decode_seqs.end());
  grid.decode_ctx = profile.layers.kv_decode;
  for (int64_t p : grid.prefill_tokens) {
    for (int64_t d : grid.decode_seqs) {
      for (int64_t c : grid.decode_ctx) grid.mixed_ns.push_back(law->NanosOf(StepShape{p, 0, d, d * c}));
    }
    for (int64_t x : grid.prefill_ctx) grid.alone_ns.push_back(p == 0 ? 0 : law->NanosOf(StepShape{p, x, 0, 0}));
  }
  changed = MakeMonotone(grid);
  return grid;
}

}  // namespace foretoken::tables
