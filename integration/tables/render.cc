#include "integration/tables/render.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstdio>
#include <vector>

namespace foretoken::tables {
namespace {

struct Map {
  std::string title, rows_name, columns_name;
  std::vector<int64_t> rows, columns;
  std::vector<double> ms;  // [row][column]
};

std::vector<Map> MapsOf(const StepTimeTable& t) {
  const StepTableGrid& g = t.grid();
  Map decode{"Decode steps, ms", "decode_seqs", "context per sequence", g.decode_seqs, g.decode_ctx, {}};
  for (int64_t d : g.decode_seqs) {
    for (int64_t c : g.decode_ctx) decode.ms.push_back(t.NanosOf({0, 0, d, d * c}) / 1e6);
  }
  const int64_t ctx = g.decode_ctx[g.decode_ctx.size() / 2];
  Map mixed{"Steps with a prompt chunk beside decodes of context " + std::to_string(ctx) + ", ms",
            "prefill_tokens",
            "decode_seqs",
            g.prefill_tokens,
            {0},
            {}};
  mixed.columns.insert(mixed.columns.end(), g.decode_seqs.begin(), g.decode_seqs.end());
  for (int64_t p : mixed.rows) {
    for (int64_t d : mixed.columns) mixed.ms.push_back(t.NanosOf({p, 0, d, d * ctx}) / 1e6);
  }
  return {decode, mixed};
}

std::string Number(double ms) {
  char text[32];
  std::snprintf(text, sizeof text, ms < 100 ? "%.2f" : "%.0f", ms);
  return text;
}

// 0..1 on a logarithmic scale over the map.
double Heat(const Map& m, double ms) {
  double low = 1e300, high = 0;
  for (double x : m.ms) {
    if (x <= 0) continue;
    low = std::min(low, x);
    high = std::max(high, x);
  }
  return ms <= 0 || high <= low ? 0 : std::log(ms / low) / std::log(high / low);
}

std::string Padded(const std::string& s, size_t width) { return std::string(s.size() < width ? width - s.size() : 0, ' ') + s; }

std::string Escaped(std::string_view s) {
  std::string out;
  for (char c : s) out += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
  return out;
}

}  // namespace

std::string TableText(const StepTimeTable& table, bool colour) {
  std::string out;
  for (const auto& [key, value] : table.grid().notes) out += key + ": " + value + "\n";
  for (const Map& m : MapsOf(table)) {
    out += "\n" + m.title + " (rows: " + m.rows_name + ", columns: " + m.columns_name + ")\n" + Padded("", 8);
    for (int64_t c : m.columns) out += Padded(std::to_string(c), 9);
    out += "\n";
    for (size_t r = 0; r < m.rows.size(); ++r) {
      out += Padded(std::to_string(m.rows[r]), 8);
      for (size_t c = 0; c < m.columns.size(); ++c) {
        const double ms = m.ms[r * m.columns.size() + c];
        const std::string cell = Padded(ms <= 0 ? "-" : Number(ms), 9);
        if (!colour || ms <= 0) {
          out += cell;
          continue;
        }
        // The 6x6x6 colour cube from blue-green to red, black text.
        const int heat = static_cast<int>(std::lround(5 * Heat(m, ms)));
        out += "\033[30;48;5;" + std::to_string(16 + 36 * heat + 6 * (5 - heat / 2) + (5 - heat)) + "m" + cell + "\033[0m";
      }
      out += "\n";
    }
  }
  return out;
}

std::string TableHtml(const StepTimeTable& table, std::string_view title) {
  std::string out = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>" + Escaped(title) +
                    "</title><style>body{font:14px "
                    "system-ui,sans-serif;margin:2em}table{border-collapse:collapse}td,th{padding:.3em .6em;text-align:right}"
                    "caption{text-align:left;font-weight:600;padding:1em 0 "
                    ".4em}th{font-weight:400;color:#555}td{color:#111}dt{float:left;width:12em;color:#555}</style><h1>" +
                    Escaped(title) + "</h1><dl>";
  for (const auto& [key, value] : table.grid().notes) out += "<dt>" + Escaped(key) + "</dt><dd>" + Escaped(value) + "</dd>";
  out += "</dl>";
  for (const Map& m : MapsOf(table)) {
    out += "<table><caption>" + Escaped(m.title) + " (rows: " + m.rows_name + ", columns: " + m.columns_name +
           ")</caption><tr><th></th>";
    for (int64_t c : m.columns) out += "<th>" + std::to_string(c) + "</th>";
    for (size_t r = 0; r < m.rows.size(); ++r) {
      out += "</tr>\n<tr><th>" + std::to_string(m.rows[r]) + "</th>";
      for (size_t c = 0; c < m.columns.size(); ++c) {
        const double ms = m.ms[r * m.columns.size() + c];
        const int hue = static_cast<int>(std::lround(190 - 180 * Heat(m, ms)));
        out += ms <= 0 ? "<td>-</td>"
                       : "<td style=\"background:hsl(" + std::to_string(hue) + " 70% 80%)\">" + Number(ms) + "</td>";
      }
    }
    out += "</tr></table>\n";
  }
  return out + "</html>\n";
}

std::string TableJson(const StepTimeTable& table) {
  boost::json::object notes, out;
  for (const auto& [key, value] : table.grid().notes) notes[key] = value;
  const auto list = [](const auto& values) {
    boost::json::array a;
    for (const auto& v : values) a.emplace_back(v);
    return a;
  };
  const StepTableGrid& g = table.grid();
  boost::json::array mixed, alone;
  for (double ns : g.mixed_ns) mixed.emplace_back(ns / 1e3);
  for (double ns : g.alone_ns) alone.emplace_back(ns / 1e3);
  out = {{"notes", notes},
         {"prefill_tokens", list(g.prefill_tokens)},
         {"prefill_ctx", list(g.prefill_ctx)},
         {"decode_seqs", list(g.decode_seqs)},
         {"decode_ctx", list(g.decode_ctx)},
         {"mixed_us", mixed},
         {"alone_us", alone}};
  return boost::json::serialize(out);
}

}  // namespace foretoken::tables
