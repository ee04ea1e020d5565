#include "integration/eval/write_summary.h"

#include <algorithm>
#include <iomanip>
#include <map>
#include <sstream>

namespace foretoken {
namespace {

std::string Fixed(double value, int decimals) {
  std::ostringstream s;
  s << std::fixed << std::setprecision(decimals) << value;
  return s.str();
}

std::string Shown(const std::optional<Spread>& spread, const Figure& figure) {
  if (!spread) return "-";
  std::string text = Fixed(spread->mean * figure.scale, figure.decimals);
  if (spread->count > 1 && spread->deviation > 0) text += " ± " + Fixed(spread->deviation * figure.scale, figure.decimals);
  return text;
}

std::string Exact(double value) {
  std::ostringstream s;
  s << std::setprecision(12) << value;
  return s.str();
}

// A field of a CSV; quoted where it must be.
std::string Field(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

// What heads a table; the other varied dimensions are columns.
bool HeadsTable(const std::string& dimension) {
  return dimension == "run" || dimension == "topology" || dimension == "workload" || dimension == "load" ||
         dimension == "rate_scale";
}

// What is absent or zero in every run is left out; that nothing was lost is said.
bool TellsAnything(const Evaluation& e, const Figure& f) {
  if (f.key == "lost") return true;
  for (size_t c = 0; c < e.combinations(); ++c)
    if (const std::optional<Spread> s = e.Over(c, f.key); s && s->mean != 0) return true;
  return false;
}

std::vector<std::string> MethodOfMeasured(const Evaluation& e) {
  const Grid& g = e.grid();
  std::vector<std::string> out;
  out.push_back(
      std::to_string(g.dimensions[0].values.size()) +
      " real runs: as they were measured, and replayed by the emulated engine with their arrivals, prompt and output "
      "lengths, limits, and step times from a table of their machine. No step time was taken from a run, but for a factor "
      "fitted to its first requests where the source says so.");
  if (g.uncounted_first > 0)
    out.push_back("The first " + std::to_string(g.uncounted_first) +
                  " requests of each run, which a replay may have been calibrated on, count in no row.");
  out.push_back("A run was measured once: differences have no spread.");
  return out;
}

}  // namespace

std::vector<SummaryTable> TablesOf(const Evaluation& e) {
  std::vector<const Figure*> figures;
  for (const Figure& f : Figures())
    if (f.in_table && TellsAnything(e, f)) figures.push_back(&f);
  std::vector<size_t> columns;
  for (const size_t d : e.Varied())
    if (!HeadsTable(e.grid().dimensions[d].name)) columns.push_back(d);
  std::vector<SummaryTable> tables;
  std::map<std::string, size_t> by_title;
  for (size_t c = 0; c < e.combinations(); ++c) {
    std::string title = e.Name(c, columns);
    if (title.empty()) title = e.Constants();
    if (!by_title.contains(title)) {
      by_title[title] = tables.size();
      tables.push_back({title, {}, {}});
      for (const size_t d : columns) tables.back().header.push_back(e.grid().dimensions[d].name);
      for (const Figure* f : figures)
        tables.back().header.push_back(std::string(f->label) + (f->unit.empty() ? "" : " (" + std::string(f->unit) + ")"));
    }
    std::vector<std::string> row;
    for (const size_t d : columns) row.push_back(e.grid().dimensions[d].values[e.At(c)[d]]);
    for (const Figure* f : figures) row.push_back(Shown(e.Over(c, f->key), *f));
    tables[by_title[title]].rows.push_back(std::move(row));
  }
  return tables;
}

std::vector<std::string> MethodOf(const Evaluation& e) {
  const Grid& g = e.grid();
  if (g.cells.front().measured) return MethodOfMeasured(e);
  std::vector<std::string> out;
  out.push_back(std::to_string(g.cells.size()) + " virtual runs: " + std::to_string(e.combinations()) + " combinations, " +
                std::to_string(g.seeds) + (g.seeds == 1 ? " seed" : " seeds") +
                "; the same arrivals in every combination of a seed.");
  if (const std::string constants = e.Constants(); !constants.empty()) out.push_back("In all of them: " + constants + ".");
  const std::optional<Spread> requests = e.Over(0, "requests"), counted = e.Over(0, "counted");
  if (requests && counted)
    out.push_back("Of " + Fixed(requests->mean, 0) + " requests per run, " + Fixed(counted->mean, 0) +
                  " are counted: the first " + Fixed(100 * g.warmup_share, 0) + " % (warm-up) and the last " +
                  Fixed(100 * g.drain_share, 0) +
                  " % (drain) by arrival are run but left out of latencies, SLO, goodput and prediction errors. Counts of " +
                  "outcomes, steps, sync and drift are over the whole run.");
  if (g.by_load)
    out.push_back(
        "A load is a share of the rate at which the fleet saturates: the sum over instances of the rate at which one alone "
        "completes requests that all wait from the start. Rate scales: " +
        [&] {
          std::map<std::string, std::string> scales;
          for (size_t c = 0; c < e.combinations(); ++c)
            scales[g.dimensions[0].values[e.At(c)[0]] + ", " + g.dimensions[1].values[e.At(c)[1]] + ", load " +
                   g.dimensions[3].values[e.At(c)[3]]] = Fixed(e.Value(c, 0, "offered_rate_scale").value_or(0), 2);
          std::string text;
          for (const auto& [where, scale] : scales) text += (text.empty() ? "" : "; ") + where + ": " + scale;
          return text;
        }() +
        ".");
  out.push_back(g.seeds > 1
                    ? "Spread: the standard deviation over seeds behind ±; in findings the half width of the 95 % "
                      "confidence interval of the difference, seed by seed. A difference within it, or below 0.5 %, is "
                      "a tie. In brackets: 95 % of a block bootstrap over time (20 pieces of each run, of all seeds together)."
                    : "One seed: there is no spread, and nothing here is a finding.");
  return out;
}

void WriteResultsCsv(const Evaluation& e, std::ostream& out) {
  const Grid& g = e.grid();
  for (const GridDimension& d : g.dimensions) out << Field(d.name) << ',';
  std::vector<std::string> keys;
  for (const auto& item : e.rows().front().at("figures").as_object()) keys.emplace_back(item.key());
  for (const std::string& key : keys) out << key << ',';
  out << "decision_digest\n";
  for (size_t k = 0; k < g.cells.size(); ++k) {
    for (size_t d = 0; d < g.dimensions.size(); ++d) out << Field(g.dimensions[d].values[g.cells[k].at[d]]) << ',';
    const boost::json::object& figures = e.rows()[k].at("figures").as_object();
    for (const std::string& key : keys) {
      const boost::json::value* v = figures.if_contains(key);
      if (v != nullptr && v->is_number()) out << Exact(v->to_number<double>());
      out << ',';
    }
    out << e.rows()[k].at("digest").as_string().c_str() << '\n';
  }
}

void WriteSummary(const Evaluation& e, std::ostream& out) {
  out << "# " << e.grid().name << "\n\n" << e.grid().question << "\n\n";
  for (const std::string& sentence : MethodOf(e)) out << "* " << sentence << "\n";
  out << "\n## Findings\n";
  for (const FindingGroup& group : FindingsOf(e)) {
    out << "\n### " << group.title << "\n\n" << group.overview << "\n\n";
    for (const std::string& sentence : group.sentences) out << "* " << sentence << "\n";
  }
  out << "\n## Figures\n";
  for (const SummaryTable& table : TablesOf(e)) {
    out << "\n### " << table.title << "\n\n|";
    for (const std::string& h : table.header) out << " " << h << " |";
    out << "\n|";
    for (size_t k = 0; k < table.header.size(); ++k) out << "---|";
    out << "\n";
    for (const std::vector<std::string>& row : table.rows) {
      out << "|";
      for (const std::string& cell : row) out << " " << cell << " |";
      out << "\n";
    }
  }
}

}  // namespace foretoken
