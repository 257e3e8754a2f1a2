import { realAgents } from "../../support/agents.ts";
import { testsOf } from "./cells.ts";

// Each start of these agents takes seconds; acp.slow.test.ts has the tests specific to ACP.
const agents = await realAgents("claude-agent-acp", "codex-acp");
testsOf("claude-agent-acp", agents["claude-agent-acp"]);
testsOf("codex-acp", agents["codex-acp"]);
