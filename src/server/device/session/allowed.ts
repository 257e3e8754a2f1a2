import { refuse } from "../../../errors.ts";
import type { Os } from "../../../store/people/devices/devices.ts";

/**
 * The agent kinds and capabilities that a device may announce, by its platform. A desktop runs the
 * programs of its own configuration, so any kind and any capability is allowed. A phone or a
 * browser runs no local programs, so a hello with other values is not from a device of the
 * platform.
 */
const anything = "anything";
type Allowed = {
  agentKinds: readonly string[] | typeof anything;
  capabilities: readonly string[] | typeof anything;
};

const desktop: Allowed = { agentKinds: anything, capabilities: anything };
const phone: Allowed = {
  agentKinds: ["chat", "shortcut", "notify"],
  capabilities: ["notification", "location", "camera", "contacts", "calendar", "health"],
};
const browser: Allowed = {
  agentKinds: ["chat", "page", "notify"],
  capabilities: ["notification", "tabs", "page", "bookmarks", "history"],
};

export const allowed: Record<Os, Allowed> = {
  macos: desktop,
  linux: desktop,
  windows: desktop,
  ios: phone,
  android: phone,
  browser,
};

/**
 * Refuses with `permission_denied` a hello with values that its platform may not have. The values
 * are not ignored, because the person who configured the daemon would wait for runs in vain.
 */
export function requireAllowed(
  platform: Os,
  hello: { agentKinds: readonly string[]; capabilities: readonly string[] },
): void {
  const { agentKinds, capabilities } = allowed[platform];
  requireAll(platform, {
    field: "hello.agent_kinds",
    what: "agent kind",
    said: hello.agentKinds,
    may: agentKinds,
  });
  requireAll(platform, {
    field: "hello.capabilities",
    what: "capability",
    said: hello.capabilities,
    may: capabilities,
  });
}

function requireAll(
  platform: Os,
  list: { field: string; what: string; said: readonly string[]; may: readonly string[] | typeof anything },
): void {
  const { may, field } = list;
  if (may === anything) return;
  const beyond = list.said.filter((name) => !may.includes(name));
  if (beyond.length === 0) return;
  refuse(
    "permission_denied",
    `a device of platform ${platform} may not have the ${list.what} ${beyond.map((name) => `"${name}"`).join(", ")}; ` +
      `it may have ${may.join(", ")}`,
    { field },
  );
}
