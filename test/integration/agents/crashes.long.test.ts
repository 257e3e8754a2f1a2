import { realAgents } from "../../support/agents.ts";
import { crashTests, momentsOf } from "./crashes.ts";

// Every cell of the agents with a part of their cells in crashes.slow.test.ts.
const names = ["claude", "codex", "claude-agent-acp", "codex-acp"] as const;
const agents = await realAgents(...names);
for (const name of names) {
  const all = momentsOf(name);
  crashTests(name, agents[name], { daemon: all, agent: all, cancel: all, timeout: all });
}
