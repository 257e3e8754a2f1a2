import { realAgents } from "../support/agents.ts";
import { replicaKilledTest } from "./agents-replica-killed.ts";

// agents-replica-killed.slow.test.ts has claude.
const agents = await realAgents("codex", "codex-acp");
replicaKilledTest("codex", agents.codex);
replicaKilledTest("codex-acp", agents["codex-acp"]);
