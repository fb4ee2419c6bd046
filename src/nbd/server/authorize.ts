/** Who may connect, by the identity that TLS has proved (N-105). */
import { BlockError } from '../../core/errors.ts';

/** Whether a client of this name may go on. */
export type Authorization = (name: string) => boolean | Promise<boolean>;

/** A rule about clients' names; of format `glob` with `*`, `?` and `[…]`. */
export interface AuthorizationRule {
  readonly match: string;
  readonly policy: 'allow' | 'deny';
  /** Default `exact`. */
  readonly format?: 'exact' | 'glob';
}

/** Whom to let in: the first rule that fits a name decides. */
export interface AuthorizationRules {
  readonly rules: readonly AuthorizationRule[];
  /** For names that no rule is about. Default `deny`. */
  readonly policy?: 'allow' | 'deny';
}

/** The first rule that is about the name decides. */
export function authorizeByRules({ rules, policy = 'deny' }: AuthorizationRules): (name: string) => boolean {
  const compiled = rules.map(({ match, policy: rulePolicy, format = 'exact' }) => {
    const pattern = format === 'glob' ? globPattern(match) : undefined;
    return { is: (name: string) => pattern?.test(name) ?? name === match, allows: rulePolicy === 'allow' };
  });
  return (name) => compiled.find(({ is }) => is(name))?.allows ?? policy === 'allow';
}

/** `*`, `?` and `[…]`, as the C library's fnmatch takes them without flags. */
function globPattern(glob: string): RegExp {
  let pattern = '';
  for (let at = 0; at < glob.length; at++) {
    const char = glob[at] ?? '';
    const close = char === '[' ? glob.indexOf(']', at + 2) : -1;
    if (char === '*') pattern += '[^]*';
    else if (char === '?') pattern += '[^]';
    else if (close > 0) {
      const inside = glob
        .slice(at + 1, close)
        .replace(/^!/, '^')
        .replace(/[\\\]]/g, '\\$&');
      pattern += `[${inside}]`;
      at = close;
    } else pattern += char.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  }
  return new RegExp(`^${pattern}$`, 'u');
}

/** Rules as JSON or text values; throws BlockError EINVAL. */
export function parseRules(value: unknown): AuthorizationRules {
  if (typeof value !== 'object' || value === null) throw invalid('Authorization rules are not an object');
  const { rules = [], policy } = value as { rules?: unknown; policy?: unknown };
  if (!Array.isArray(rules)) throw invalid('Authorization rules are not a list');
  return { rules: rules.map(parseRule), ...(policy === undefined ? {} : { policy: parsePolicy(policy) }) };
}

function parseRule(value: unknown): AuthorizationRule {
  const { match, policy, format = 'exact' } = (value ?? {}) as Record<string, unknown>;
  if (typeof match !== 'string') throw invalid("Authorization rule without 'match'");
  if (format !== 'exact' && format !== 'glob') {
    throw invalid(`Parameter 'format' does not accept value '${String(format)}'`);
  }
  return { match, policy: parsePolicy(policy), format };
}

function parsePolicy(value: unknown): 'allow' | 'deny' {
  if (value === 'allow' || value === 'deny') return value;
  throw invalid(`Parameter 'policy' does not accept value '${String(value)}'`);
}

function invalid(text: string): BlockError {
  return new BlockError('EINVAL', text);
}
