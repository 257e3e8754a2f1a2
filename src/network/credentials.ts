/** The name and the password that a URL holds. */

const unreadable = 'its name or password has a "%" that must be written as %25';

/**
 * Decoded; undefined for a URL without a name. Throws an error, whose message shows neither, for a
 * "%" that begins no code.
 */
export function credentialsOf(
  url: Pick<URL, "username" | "password">,
): { name: string; password: string } | undefined {
  if (url.username === "") return undefined;
  try {
    return { name: decodeURIComponent(url.username), password: decodeURIComponent(url.password) };
  } catch {
    throw new Error(unreadable);
  }
}

/**
 * The reason why nothing can be dialled by the credentials of the URL; undefined: they can be read.
 */
export function credentialsProblem(url: Pick<URL, "username" | "password">): string | undefined {
  try {
    credentialsOf(url);
    return undefined;
  } catch {
    return unreadable;
  }
}
