// WriteReport: an evaluation as one HTML page that needs nothing but itself: Chart.js, styles, script and data are in it. Tables and
// findings are plain HTML and are there without scripts; charts can be driven from the keyboard, and each has its numbers as a
// table beside it for those who cannot see it.
#pragma once

#include <ostream>

#include "integration/eval/evaluation.h"

namespace foretoken {

void WriteReport(const Evaluation& evaluation, std::ostream& out);

// The data of the charts: dimensions, figures, one row of figures per cell, curves and slices per combination (means over seeds).
boost::json::object ReportData(const Evaluation& evaluation);

}  // namespace foretoken
