/** The home of real agents that speak with a scripted model (model.ts) and nothing else. */
import { mkdirSync, writeFileSync } from "node:fs";
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

/** Opencode takes the provider from a file of its own alone. */
export function writeOpencodeConfig({ home, modelUrl }: Home): void {
  const folder = join(home, ".config/opencode");
  mkdirSync(folder, { recursive: true });
  const provider = {
    npm: "@ai-sdk/anthropic",
    name: "Scripted",
    options: { baseURL: `${modelUrl}/v1`, apiKey: "k" },
    models: { "scripted-1": { name: "Scripted", limit: { context: 100_000, output: 8_000 } } },
  };
  const config = {
    autoupdate: false,
    share: "disabled",
    model: "scripted/scripted-1",
    small_model: "scripted/scripted-1",
    permission: { edit: "ask", bash: "ask" },
    provider: { scripted: provider },
  };
  writeFileSync(join(folder, "opencode.json"), JSON.stringify(config));
  seemInstalled(folder);
}

/**
 * Opencode installs this package from npm's registry into a folder of its configuration, unless the
 * folder's lockfile has the package: the tests would need the network, and two seconds of
 * processor time for each start.
 */
function seemInstalled(folder: string): void {
  const dependencies = { "@opencode-ai/plugin": "*" };
  mkdirSync(join(folder, "node_modules"));
  writeFileSync(join(folder, "package.json"), JSON.stringify({ dependencies }));
  writeFileSync(join(folder, "package-lock.json"), JSON.stringify({ packages: { "": { dependencies } } }));
}

/** Gemini's settings: a key of the API, and nothing that leaves the machine. */
export function writeGeminiSettings(home: string): void {
  mkdirSync(join(home, ".gemini"));
  const settings = {
    security: { auth: { selectedType: "gemini-api-key" }, folderTrust: { enabled: false } },
    general: { enableAutoUpdate: false },
    telemetry: { enabled: false },
    privacy: { usageStatisticsEnabled: false },
  };
  writeFileSync(join(home, ".gemini/settings.json"), JSON.stringify(settings));
}
