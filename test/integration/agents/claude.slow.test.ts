import { realAgents } from "../../support/agents.ts";
import { testsOf } from "./cells.ts";

const agents = await realAgents("claude");
testsOf("claude", agents.claude);
