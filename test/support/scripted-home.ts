/** The home of real agents that speak with a scripted model (model.ts) and nothing else. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

type Home = { home: string; modelUrl: string };

/** Variables of claude and codex in the home. */
export function scriptedVariables({ home, modelUrl }: Home): Record<string, string> {
  return {
    HOME: home,
    // Codex puts the helper of its sandbox into its home, unless the home is below the folder for
    // temporary files.
    TMPDIR: join(home, "tmp"),
    CODEX_HOME: join(home, ".codex"),
    SCRIPTED_KEY: "k",
    ANTHROPIC_BASE_URL: modelUrl,
    ANTHROPIC_API_KEY: "sk-scripted",
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
    IS_SANDBOX: "1",
  };
}

/** Writes codex's configuration into the home's `.codex`, with `more` lines at its end. */
export function writeCodexConfig({ home, modelUrl }: Home, more = ""): void {
  writeFileSync(
    join(home, ".codex/config.toml"),
    `model = "scripted-1"
model_provider = "scripted"
[model_providers.scripted]
name = "scripted"
base_url = "${modelUrl}/v1"
wire_api = "responses"
env_key = "SCRIPTED_KEY"
${more}`,
  );
}
