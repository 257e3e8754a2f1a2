import { realAgents } from "../../support/agents.ts";
import { testsOf } from "./cells.ts";

// Each of their starts takes seconds; acp.test.ts has what differs from the others.
const agents = await realAgents("claude-agent-acp", "codex-acp");
testsOf("claude-agent-acp", agents["claude-agent-acp"]);
testsOf("codex-acp", agents["codex-acp"]);
