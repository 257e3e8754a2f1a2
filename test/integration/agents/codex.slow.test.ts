import { realAgents } from "../../support/agents.ts";
import { testsOf } from "./cells.ts";

const agents = await realAgents("codex");
testsOf("codex", agents.codex);
