/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A race as they are found in programs: two threads use one thing, and count how many do. They count without a lock. When a count
 * is lost, the thing is given up while somebody still needs it; that is noticed much later.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TURNS 12
#define SLOW 10000

static struct thing {
    int value;
} the_thing = {42};

struct thing *volatile thing = &the_thing;

/* main itself is the first who uses it. */
volatile int users = 1;

static void count(int change)
{
    int counted = users;

    /* The longer this takes, the more often the other thread comes in between. */
    for (volatile int i = 0; i < SLOW; i++)
        ;
    users = counted + change;
}

void get(void)
{
    count(1);
}

void put(void)
{
    count(-1);
    if (users == 0)
        thing = NULL;
}

static void *use(void *argument)
{
    unsigned int chance = *(unsigned int *)argument;

    for (int turn = 0; turn < TURNS; turn++) {
        usleep(2000 + rand_r(&chance) % 9000);
        get();
        usleep(500 + rand_r(&chance) % 2000);
        put();
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[2];
    unsigned int chances[2];
    FILE *random = fopen("/dev/urandom", "r");

    if (!random || fread(chances, sizeof chances, 1, random) != 1)
        return 1;
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, use, &chances[i]);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    puts("both threads are done");
    fflush(stdout);
    usleep(400000);
    printf("the value is %d\n", thing->value);
    return 0;
}
