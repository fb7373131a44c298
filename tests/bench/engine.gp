# Draw engine.dat, which engine.py wrote: one group of bars a workload, ratios to plain PostgreSQL.  A bar is the
# median, the line on it goes from the least to the most.
set terminal svg size 1100,520 background '#ffffff' font 'sans-serif,12' noenhanced
set output 'engine.svg'
set datafile separator '\t'
set style data histograms
set style histogram errorbars gap 1 linewidth 1
set style fill solid 0.8 border rgb '#444444'
set boxwidth 0.9
set yrange [0:1.5]
set ytics 0.2
set grid ytics lc rgb '#dddddd'
set ylabel 'ratio to plain PostgreSQL (more is faster)'
set xtics rotate by -30 scale 0
set key top right horizontal
set border 3
columns = (words(system("head -n 1 engine.dat | tr ' ' '_'")) - 1) / 3
set arrow from graph 0, first 1 to graph 1, first 1 nohead lc rgb '#888888' dt 2
array colour[3] = ['#1b6ca8', '#d98e04', '#7a7a7a']
plot for [i = 0 : columns - 1] 'engine.dat' using (column(3 * i + 2)):(column(3 * i + 3)):(column(3 * i + 4)):xtic(1) \
	title columnheader(3 * i + 2) lc rgb colour[i % 3 + 1]
