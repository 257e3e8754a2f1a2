import { realAgents } from "../support/agents.ts";
import { replicaKilledTest } from "./agents-replica-killed.ts";

const { claude } = await realAgents("claude");
replicaKilledTest("claude", claude);
