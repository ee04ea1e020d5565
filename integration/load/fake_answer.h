// What a FakeEngine sends for one request, and when.
#pragma once

#include "integration/http/http_server.h"
#include "integration/load/fake_engine.h"
#include "integration/load/openai_text.h"

namespace foretoken {

// Answers at the engine's pace, with its faults; the connection holds the answer until it has ended.
void AnswerFake(FakeEngine& engine, HttpConnection& connection, EngineCall request, Instant received);

}  // namespace foretoken
