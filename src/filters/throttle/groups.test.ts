import { describe, expect, test } from 'vitest';
import { SimHost } from '../../testing/index.ts';
import { throttleGroups } from './groups.ts';
import { UNLIMITED } from './limits.ts';

describe('throttle groups by name (M-OBJ-1)', () => {
  test('a host keeps its groups, another host has none of them', () => {
    const host = new SimHost();
    const group = throttleGroups(host).add('g0');
    expect(group.limits).toEqual(UNLIMITED);
    expect(group.name).toBe('g0');
    expect(throttleGroups(host).get('g0')).toBe(group);
    expect(throttleGroups(new SimHost()).get('g0')).toBeUndefined();
  });

  test('a name is taken once', () => {
    const groups = throttleGroups(new SimHost());
    groups.add('g0');
    const message = "attempt to add duplicate property 'g0' to object (type 'container')";
    expect(() => groups.add('g0')).toThrow(expect.objectContaining({ code: 'EEXIST', message }));
  });

  test('a group with members stays', () => {
    const groups = throttleGroups(new SimHost());
    const [first, second] = [groups.add('g0').join(), groups.get('g0')?.join()];
    const busy = expect.objectContaining({ code: 'EBUSY', message: "object 'g0' is in use, can not be deleted" });
    expect(() => groups.remove('g0')).toThrow(busy);
    first.leave();
    expect(() => groups.remove('g0')).toThrow(busy);
    second?.leave();
    groups.remove('g0');
    expect(groups.get('g0')).toBeUndefined();
    const missing = expect.objectContaining({ code: 'ENOENT', message: "object 'g0' not found" });
    expect(() => groups.remove('g0')).toThrow(missing);
  });
});
