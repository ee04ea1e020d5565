// The results of an evaluation as files for programs and people: results.csv and summary.md. Equal for equal inputs, whatever the
// number of threads and however often it was interrupted: no wall time is in them.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "integration/eval/evaluation.h"
#include "integration/eval/findings.h"

namespace foretoken {

// One table of combinations that share what heads it.
struct SummaryTable {
  std::string title;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
};
std::vector<SummaryTable> TablesOf(const Evaluation& evaluation);

// How the figures were counted, one sentence each.
std::vector<std::string> MethodOf(const Evaluation& evaluation);

void WriteResultsCsv(const Evaluation& evaluation, std::ostream& out);
void WriteSummary(const Evaluation& evaluation, std::ostream& out);

}  // namespace foretoken
