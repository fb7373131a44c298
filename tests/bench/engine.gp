# Draw engine.dat, which engine.py wrote: one group of bars a workload, ratios to plain PostgreSQL.
set terminal svg size 1100,520 background '#ffffff' font 'sans-serif,12'
set output 'engine.svg'
set datafile separator '\t'
set style data histograms
set style histogram clustered gap 1
set style fill solid 0.9 noborder
set boxwidth 0.9
set yrange [0:1.2]
set ytics 0.2
set grid ytics lc rgb '#dddddd'
set ylabel 'ratio to plain PostgreSQL (more is faster)'
set xtics rotate by -30 scale 0
set key top right horizontal
set border 3
stats 'engine.dat' skip 1 using 0 nooutput
columns = words(system("head -n 1 engine.dat | tr ' ' '_'")) - 1
set arrow from graph 0, first 1 to graph 1, first 1 nohead lc rgb '#888888' dt 2
array colour[3] = ['#1b6ca8', '#d98e04', '#7a7a7a']
plot for [i = 2 : columns + 1] 'engine.dat' using i:xtic(1) title columnheader(i) lc rgb colour[(i - 2) % 3 + 1]
