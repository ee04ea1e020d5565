#include "integration/eval/write_report.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "integration/eval/page/embedded_page.h"
#include "integration/eval/write_summary.h"

namespace foretoken {
namespace {

namespace json = boost::json;

std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += c;
    }
  }
  return out;
}

// JSON within a script element: nothing in it may end the element.
std::string ForScript(const json::object& data) {
  std::string text = json::serialize(data), out;
  for (const char c : text) out += c == '<' ? std::string("\\u003c") : std::string(1, c);
  return out;
}

// Means over seeds, place by place; places that a seed lacks are left out of its mean.
json::value MeanOf(const std::vector<const json::value*>& values) {
  if (values.empty()) return nullptr;
  if (values.front()->is_array()) {
    size_t length = 0;
    for (const json::value* v : values)
      if (v->is_array()) length = std::max(length, v->as_array().size());
    json::array out;
    for (size_t k = 0; k < length; ++k) {
      std::vector<const json::value*> at;
      for (const json::value* v : values)
        if (v->is_array() && k < v->as_array().size()) at.push_back(&v->as_array()[k]);
      out.push_back(MeanOf(at));
    }
    return out;
  }
  double sum = 0;
  size_t count = 0;
  for (const json::value* v : values) {
    if (!v->is_number()) continue;
    sum += v->to_number<double>();
    ++count;
  }
  if (count == 0) return nullptr;
  char text[32];
  std::snprintf(text, sizeof text, "%.5g", sum / static_cast<double>(count));
  return std::stod(text);
}

json::object CombinationData(const Evaluation& e, size_t combination) {
  json::object out;
  json::array at;
  for (size_t d = 0; d + 1 < e.grid().dimensions.size(); ++d) at.emplace_back(e.At(combination)[d]);
  out["at"] = std::move(at);
  json::object figures;
  for (const Figure& f : Figures()) {
    json::array values;
    for (size_t s = 0; s < e.grid().seeds; ++s) {
      const std::optional<double> v = e.Value(combination, s, f.key);
      values.emplace_back(v ? json::value(*v) : json::value(nullptr));
    }
    figures[f.key] = std::move(values);
  }
  out["figures"] = std::move(figures);
  for (const char* part : {"ttft", "tpot", "e2e", "slices"}) {
    std::vector<const json::value*> all;
    for (size_t s = 0; s < e.grid().seeds; ++s) {
      const json::value& v = e.Row(combination, s).at("detail").at(part);
      if (v.is_array() && !v.as_array().empty()) all.push_back(&v);
    }
    out[part] = all.empty() ? json::value(json::array()) : MeanOf(all);
  }
  out["slice_s"] = e.Row(combination, 0).at("detail").at("slice_s");
  out["scatter"] = e.Row(combination, 0).at("detail").at("scatter");
  return out;
}

void WriteTable(const SummaryTable& table, std::ostream& out) {
  out << "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"" << Escaped(table.title) << "\"><table><caption>"
      << Escaped(table.title) << "</caption><thead><tr>";
  for (const std::string& h : table.header) out << "<th scope=\"col\">" << Escaped(h) << "</th>";
  out << "</tr></thead><tbody>\n";
  for (const std::vector<std::string>& row : table.rows) {
    out << "<tr>";
    for (size_t k = 0; k < row.size(); ++k)
      out << (k == 0 ? "<th scope=\"row\">" : "<td>") << Escaped(row[k]) << (k == 0 ? "</th>" : "</td>");
    out << "</tr>\n";
  }
  out << "</tbody></table></div>\n";
}

void WriteFindings(const Evaluation& e, std::ostream& out) {
  out << "<section aria-labelledby=\"h-findings\"><h2 id=\"h-findings\">Findings</h2>\n";
  for (const FindingGroup& group : FindingsOf(e)) {
    out << "<h3>" << Escaped(group.title) << "</h3><p>" << Escaped(group.overview) << "</p><details><summary>"
        << group.sentences.size() << " comparisons</summary><ul>\n";
    for (const std::string& sentence : group.sentences) out << "<li>" << Escaped(sentence) << "</li>\n";
    out << "</ul></details>\n";
  }
  out << "</section>\n";
}

// One chart with the heading, the description and the table that its script fills.
void WriteChart(const char* id, const char* heading, const char* note, std::ostream& out) {
  out << "<section aria-labelledby=\"h-" << id << "\"><h3 id=\"h-" << id << "\">" << heading << "</h3><p class=\"note\">"
      << note << "</p><div class=\"controls\" id=\"c-" << id << "\"></div><div class=\"chart\"><canvas id=\"" << id
      << "\" role=\"img\" aria-label=\"" << heading << "\"></canvas></div><details><summary>The numbers of this chart</summary>"
      << "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"" << heading << ": numbers\" id=\"t-" << id
      << "\"></div></details></section>\n";
}

void WriteCharts(std::ostream& out) {
  out << "<section id=\"charts\" aria-labelledby=\"h-charts\"><h2 id=\"h-charts\">Charts</h2>\n<noscript><p>The charts need "
         "JavaScript; all figures are in the tables below.</p></noscript>\n"
         "<form id=\"filters\" aria-label=\"What the charts show\"></form>\n"
         "<p id=\"said\" class=\"note\" role=\"status\" aria-live=\"polite\"></p>\n";
  WriteChart("bars", "Figures with their spread over seeds", "Bar: mean over seeds. Line: lowest to highest seed.", out);
  out << "<section aria-labelledby=\"h-heat\"><h3 id=\"h-heat\">Heat map</h3><p class=\"note\">The same figure over both "
         "dimensions. Darker is worse, where one direction is better.</p><div class=\"scroll\" role=\"region\" tabindex=\"0\" "
         "aria-label=\"Heat map\" id=\"heat\"></div></section>\n";
  WriteChart("cdf", "Distribution of latencies", "Share of requests at or below a latency; mean of the seeds' curves.", out);
  WriteChart("time", "Course of the run", "Mean over seeds, by the time at which requests arrived. Warm-up and drain included.",
             out);
  WriteChart("scatter", "Predicted against true E2E latency",
             "A sample of the first seed's requests, both from the decision on. On the line, the prediction came true.", out);
  out << "</section>\n";
}

}  // namespace

json::object ReportData(const Evaluation& e) {
  json::array dimensions, figures, combinations;
  for (size_t d = 0; d + 1 < e.grid().dimensions.size(); ++d) {
    json::array values;
    for (const std::string& v : e.grid().dimensions[d].values) values.emplace_back(v);
    dimensions.emplace_back(json::object{{"name", e.grid().dimensions[d].name}, {"values", std::move(values)}});
  }
  constexpr const char* kBetter[] = {"lower", "higher", "neither"};
  for (const Figure& f : Figures())
    figures.emplace_back(json::object{{"key", f.key},
                                      {"label", f.label},
                                      {"unit", f.unit},
                                      {"scale", f.scale},
                                      {"decimals", f.decimals},
                                      {"better", kBetter[static_cast<size_t>(f.better)]}});
  for (size_t c = 0; c < e.combinations(); ++c) combinations.emplace_back(CombinationData(e, c));
  return {{"name", e.grid().name},
          {"dimensions", std::move(dimensions)},
          {"figures", std::move(figures)},
          {"combinations", std::move(combinations)}};
}

void WriteReport(const Evaluation& e, std::ostream& out) {
  out << "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>"
      << Escaped(e.grid().name) << " - Foretoken evaluation</title>\n<style>\n"
      << kReportStyle << "</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#tables\">Skip to the tables</a>\n<header><h1>"
      << Escaped(e.grid().name) << "</h1><p>" << Escaped(e.grid().question) << "</p></header>\n<main>\n"
      << "<section aria-labelledby=\"h-method\"><h2 id=\"h-method\">What was run</h2><ul>\n";
  for (const std::string& sentence : MethodOf(e)) out << "<li>" << Escaped(sentence) << "</li>\n";
  out << "</ul></section>\n";
  WriteFindings(e, out);
  WriteCharts(out);
  out << "<section id=\"tables\" aria-labelledby=\"h-tables\"><h2 id=\"h-tables\">Tables</h2>\n";
  for (const SummaryTable& table : TablesOf(e)) WriteTable(table, out);
  out << "</section>\n</main>\n<footer><p>Written by <code>foretoken eval</code>. Every figure of every run is in "
         "results.csv. Charts: Chart.js (MIT licence), in this page.</p></footer>\n"
         "<script type=\"application/json\" id=\"data\">"
      << ForScript(ReportData(e)) << "</script>\n<script>" << kChartJs << "</script>\n<script>\n"
      << kReportScript << "</script>\n</body>\n</html>\n";
}

}  // namespace foretoken
